//! How HTTP is carried: TLS, HTTP/2, Unix sockets, kept connections and odd servers, on every
//! engine that can.

mod support;

use std::{
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aifb_schema::result::LoadResult;
use support::{
    Mock, for_each_engine,
    front::{self, Keys, always, request, scripted},
    measure, measured,
};

const TEN: [&str; 4] = ["--concurrency", "2", "--requests", "10"];

fn chat(url: &str, options: &[&str]) -> LoadResult {
    let base = ["--driver", "openai-chat", "--url", url, "--output-tokens", "10"];
    measured(&[&base[..], &TEN, options].concat())
}

fn get(url: &str, options: &[&str]) -> LoadResult {
    measured(&[&["--driver", "http", "--url", url], options].concat())
}

fn quick() -> Mock {
    Mock::start(&["--ttft", "1ms", "--itl", "1ms"])
}

#[track_caller]
fn all_ok(result: &LoadResult, count: u64) {
    assert_eq!((result.counts.ok, result.counts.failed), (count, 0), "{:?}", result.error_examples);
}

#[test]
fn tls_is_spoken_and_checked() {
    let mock = quick();
    let keys = Keys::make("localhost");
    let others = Keys::make("localhost");
    let port = front::tls(&mock.url, &keys, &["http/1.1"], false);
    let url = format!("https://localhost:{port}");
    let (ca, wrong_ca) = (keys.path("ca.pem"), others.path("ca.pem"));
    for_each_engine(|engine| {
        let result = chat(&url, &[engine, &["--ca", &ca]].concat());
        all_ok(&result, 10);
        assert_eq!(result.metrics.output_tokens, Some(100));
        all_ok(&chat(&url, &[engine, &["--insecure"]].concat()), 10);
        // By its address the server has another name, unless it is told.
        let by_address = format!("https://127.0.0.1:{port}");
        let named = ["--ca", &ca, "--server-name", "localhost"];
        all_ok(&chat(&by_address, &[engine, &named].concat()), 10);
        for (url, options) in [
            (&url, &["--ca", wrong_ca.as_str()][..]),
            (&by_address, &["--ca", ca.as_str()]),
            (&url, &["--ca", ca.as_str(), "--server-name", "other.test"]),
        ] {
            let base = ["--driver", "http", "--url", url, "--path", "/health", "--json"];
            let output = measure(&[&base[..], &TEN, engine, options].concat());
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(4), "{options:?}: {stderr}");
            assert!(stderr.contains("TLS: ") && stderr.contains("certificate"), "{stderr}");
        }
    });
}

/// Failures of the handshake have their class where the load goes on.
#[test]
fn failed_handshakes_have_their_class() {
    let mock = quick();
    let plain = mock.url.replace("http://", "https://");
    let keys = Keys::make("localhost");
    let port = front::tls(&mock.url, &keys, &[], false);
    let good = format!("https://127.0.0.1:{port}");
    for_each_engine(|engine| {
        // The first connects, so that the load begins; the second does not speak TLS at all.
        let options = ["--url", &good, "--url", &plain, "--path", "/health", "--insecure"];
        let rest = ["--driver", "http", "--concurrency", "1", "--requests", "10"];
        let result = measured(&[&options[..], &rest, engine].concat());
        assert_eq!((result.counts.ok, result.counts.failed), (5, 5), "{:?}", result.errors);
        assert_eq!(result.errors.get("tls"), Some(&5), "{:?}", result.error_examples);
    });
}

#[test]
fn clients_prove_who_they_are() {
    let mock = quick();
    let keys = Keys::make("localhost");
    let port = front::tls(&mock.url, &keys, &["http/1.1", "h2"], true);
    let url = format!("https://localhost:{port}");
    let (ca, cert, key) = (keys.path("ca.pem"), keys.path("client.pem"), keys.path("client.key"));
    let proof = ["--ca", &ca, "--cert", &cert, "--key", &key];
    for_each_engine(|engine| all_ok(&chat(&url, &[engine, &proof].concat()), 10));
    all_ok(&chat(&url, &[&proof[..], &["--http2"]].concat()), 10);
    // In TLS 1.3 a client learns of the refusal with its first answer.
    let base = ["--driver", "http", "--url", &url, "--path", "/health", "--ca", &ca, "--json"];
    let output = measure(&[&base[..], &TEN].concat());
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(support::result(&output).counts.ok, 0);
    for (options, text) in [
        (&["--cert", cert.as_str()][..], "--key"),
        (&["--ca", "/no/such.pem"], "reading TLS file '/no/such.pem'"),
        (&["--ca", key.as_str()], "no certificate"),
        (&["--cert", cert.as_str(), "--key", ca.as_str()], "reading TLS key"),
        (&["--insecure", "--ca", ca.as_str()], "cannot be used with"),
        (&["--http2", "--engine", "raw"], "HTTP/1.1 only"),
        (&["--api-key-file", "/no/such"], "reading API key '/no/such'"),
        (&["--api-key-env", "AIFB_NO_SUCH"], "variable 'AIFB_NO_SUCH' is not set"),
    ] {
        let output = measure(&[&["--driver", "http", "--url", &url][..], &TEN, options].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {stderr}");
        assert!(stderr.contains(text), "{options:?}: {stderr}");
    }
}

#[test]
fn http2_is_known_or_agreed_on() {
    let mock = quick();
    let result = chat(&mock.url, &["--http2"]);
    all_ok(&result, 10);
    assert_eq!((result.metrics.output_tokens, result.counts.sent), (Some(100), 10));
    let ttft = result.metrics.ttft_seconds.unwrap();
    assert!(ttft.min >= 0.001, "{ttft:?}");
    let keys = Keys::make("localhost");
    let ca = keys.path("ca.pem");
    let port = front::tls(&mock.url, &keys, &["h2", "http/1.1"], false);
    let url = format!("https://localhost:{port}");
    all_ok(&chat(&url, &["--ca", &ca, "--http2"]), 10);
    all_ok(&chat(&url, &["--ca", &ca]), 10);
    let port = front::tls(&mock.url, &keys, &["http/1.1"], false);
    let url = format!("https://localhost:{port}");
    let base = ["--driver", "http", "--url", &url, "--ca", &ca, "--http2"];
    let output = measure(&[&base[..], &TEN].concat());
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("TLS: "));
}

#[test]
fn unix_sockets_lead_to_services() {
    let mock = quick();
    let folder = tempfile::tempdir().unwrap();
    let path = front::unix(&mock.url, folder.path());
    let url = format!("unix:{}", path.display());
    for_each_engine(|engine| {
        all_ok(&chat(&url, engine), 10);
        let based = format!("{url}:/v1");
        all_ok(&get(&based, &[&TEN[..], engine, &["--path", "/models"]].concat()), 10);
    });
    all_ok(&chat(&url, &["--http2"]), 10);
    let missing = format!("unix:{}/none.sock", folder.path().display());
    let output = measure(&[&["--driver", "http", "--url", &missing][..], &TEN].concat());
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.sock"));
}

const KEEP: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The headers that every request has, and the key in the header that is asked for.
#[test]
fn requests_say_what_they_should() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let url = scripted(move |mut stream| {
        while let Some(text) = request(&mut stream) {
            kept.lock().unwrap().push(text);
            if stream.write_all(KEEP.as_bytes()).is_err() {
                return;
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "s3cret\n").unwrap();
    let file = file.display().to_string();
    for_each_engine(|engine| {
        seen.lock().unwrap().clear();
        let options = [
            "--concurrency",
            "1",
            "--requests",
            "3",
            "--method",
            "POST",
            "--path",
            "/items/{id}",
            "--body",
            r#"{"id":{id},"seed":{seed},"any":"{random:9}"}"#,
            "--seed",
            "5",
            "--header",
            "x-own: yes",
            "--api-key-file",
            &file,
        ];
        all_ok(&get(&url, &[&options[..], engine].concat()), 3);
        let texts = seen.lock().unwrap().clone();
        for (id, text) in texts.iter().enumerate() {
            let lower = text.to_lowercase();
            assert!(text.starts_with(&format!("POST /items/{id} HTTP/1.1\r\n")), "{text}");
            for line in [
                "accept-encoding: identity",
                "authorization: bearer s3cret",
                "x-own: yes",
                &format!("host: {}", url.trim_start_matches("http://")),
            ] {
                assert_eq!(lower.matches(&format!("{line}\r\n")).count(), 1, "{line}: {text}");
            }
            assert!(text.contains(&format!(r#"{{"id":{id},"seed":5,"any":""#)), "{text}");
        }
        seen.lock().unwrap().clear();
        let key = ["--api-key-file", &file, "--api-key-header", "X-Api-Key"];
        let host = ["--header", "host: other.test", "--header", "user-agent: me"];
        all_ok(&get(&url, &[&TEN[..], engine, &key, &host].concat()), 10);
        let text = seen.lock().unwrap()[0].to_lowercase();
        for line in ["x-api-key: s3cret", "host: other.test", "user-agent: me"] {
            assert_eq!(text.matches(&format!("{line}\r\n")).count(), 1, "{line}: {text}");
        }
        assert!(!text.contains("authorization"), "{text}");
        assert_eq!(text.matches("host: ").count() + text.matches("user-agent: ").count(), 2);
    });
}

#[test]
fn answers_are_checked_against_what_is_expected() {
    let url = scripted(always("HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nnot there"));
    let good = scripted(always(KEEP));
    for_each_engine(|engine| {
        let run = |url: &str, options: &[&str]| get(url, &[&TEN[..], engine, options].concat());
        let expected = ["--expect-status", "404", "--expect-text", "t th"];
        all_ok(&run(&url, &expected), 10);
        assert_eq!(run(&url, &[]).errors.get("status_4xx"), Some(&10));
        let text = ["--expect-status", "404", "--expect-text", "here it is"];
        let result = run(&url, &text);
        assert_eq!(result.errors.get("verify_mismatch"), Some(&10));
        assert!(result.error_examples["verify_mismatch"].contains("'here it is'"));
        assert_eq!(
            run(&good, &["--expect-status", "404"]).errors.get("verify_mismatch"),
            Some(&10)
        );
    });
}

/// Kept connections are used for as long as the server keeps them.
#[test]
fn connections_are_kept() {
    let count = Arc::new(AtomicUsize::new(0));
    for (answer, once) in [
        (KEEP, false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false),
        ("HTTP/1.1 204 No Content\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", true),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        // Bytes that nobody asked for: what follows cannot be trusted.
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", true),
    ] {
        let counted = Arc::clone(&count);
        let serve = always(answer);
        let url = scripted(move |stream| {
            counted.fetch_add(1, Ordering::Relaxed);
            serve(stream);
        });
        for_each_engine(|engine| {
            count.store(0, Ordering::Relaxed);
            let options = ["--concurrency", "1", "--requests", "20"];
            all_ok(&get(&url, &[&options[..], engine].concat()), 20);
            let opened = count.load(Ordering::Relaxed);
            assert_eq!(opened, if once { 20 } else { 1 }, "{engine:?} {answer:?}");
        });
    }
}

/// The server closes after each answer without a word: no request is lost.
#[test]
fn silent_closings_cost_no_request() {
    let url = scripted(|mut stream| {
        if request(&mut stream).is_some() {
            let _ignored = stream.write_all(KEEP.as_bytes());
        }
    });
    for_each_engine(|engine| {
        let options = ["--concurrency", "4", "--requests", "200"];
        all_ok(&get(&url, &[&options[..], engine].concat()), 200);
    });
    let mock = Mock::start(&["--ttft", "1ms", "--itl", "0s", "--close"]);
    all_ok(&chat(&mock.url, &["--http2"]), 10);
}

/// A server with Nagle's algorithm that writes an answer in small parts waits for our
/// acknowledgements; they come at once, not after the usual 40 ms.
#[test]
fn no_part_of_an_answer_waits_for_an_acknowledgement() {
    let url = scripted(|mut stream| {
        stream.set_nodelay(false).expect("Nagle's algorithm");
        while request(&mut stream).is_some() {
            let parts = ["HTTP/1.1 200 OK\r\n", "content-length: 6\r\n\r\n", "one", "two"];
            if parts.iter().any(|part| stream.write_all(part.as_bytes()).is_err()) {
                return;
            }
        }
    });
    for_each_engine(|engine| {
        let options = ["--concurrency", "1", "--requests", "60"];
        let result = get(&url, &[&options[..], engine].concat());
        all_ok(&result, 60);
        let service = result.metrics.service_seconds.unwrap();
        assert!(service.p50 < 0.030, "{engine:?}: {service:?}");
        assert_eq!(result.client.quick_ack, Some(true));
        // Left to the kernel, as other clients do: three parts, each for the acknowledgement of the
        // one before.
        let result = get(&url, &[&options[..], engine, &["--no-quick-ack"]].concat());
        let service = result.metrics.service_seconds.unwrap();
        assert!(service.p50 > 0.030, "{engine:?}: {service:?}");
        assert_eq!(result.client.quick_ack, Some(false));
    });
}

/// A server that refuses a long body before it has come: the answer counts, nothing hangs.
#[test]
fn an_early_refusal_is_read() {
    let url = scripted(|mut stream| {
        let mut head = [0; 1024];
        let _ignored = std::io::Read::read(&mut stream, &mut head);
        let text = "HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig";
        let _ignored = stream.write_all(text.as_bytes());
        // The rest is not read; the connection stays open for a while.
        std::thread::sleep(Duration::from_secs(2));
    });
    let folder = tempfile::tempdir().unwrap();
    for_each_engine(|engine| {
        // As long as an argument may be (128 KiB), and longer than what the server reads.
        let body = "x".repeat(120_000);
        let options = ["--concurrency", "1", "--requests", "2", "--method", "POST", "--body"];
        let limit = [body.as_str(), "--timeout", "10s"];
        let result = get(&url, &[&options[..], &limit, engine].concat());
        assert_eq!(result.errors.get("status_4xx"), Some(&2), "{engine:?}: {:?}", result.errors);
        assert!(result.error_examples["status_4xx"].ends_with("big"));
    });
    drop(folder);
}

/// Long bodies arrive whole.
#[test]
fn long_bodies_arrive() {
    let url = scripted(|mut stream| {
        while let Some(text) = request(&mut stream) {
            let sum = text.bytes().filter(|byte| *byte == b'q').count();
            let body = format!("{sum} q");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    for_each_engine(|engine| {
        let body = "q".repeat(100_000);
        let options = ["--method", "POST", "--body", &body, "--expect-text", "100000 q"];
        all_ok(&get(&url, &[&TEN[..], &options, engine].concat()), 10);
    });
}
