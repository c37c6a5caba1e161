//! The truth server: its schedule, its capacity, its freezes; and Ollama's steps before the start.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use support::{Mock, measure, measured, result};

/// Sends a request over HTTP/1.1 and reads until the server closes.
fn ask(mock: &Mock, path: &str, body: &str) -> String {
    let address = mock.url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).expect("connect");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).expect("send");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

/// Values of a number's key in a text, in their order.
fn numbers(text: &str, key: &str) -> Vec<u64> {
    let mark = format!("\"{key}\":");
    let number = |part: &str| {
        let digits = part.trim_start();
        let end = digits.find(|c: char| !c.is_ascii_digit()).expect("an end");
        digits[..end].parse().expect("a number")
    };
    text.split(&mark).skip(1).map(number).collect()
}

#[test]
fn events_carry_the_truth() {
    let mock = Mock::start(&["--ttft", "20ms", "--itl", "5ms"]);
    for (path, body) in [
        ("/v1/completions", r#"{"prompt":"a","max_tokens":4,"stream":true}"#),
        ("/v1/chat/completions", r#"{"messages":[{"content":"a"}],"max_tokens":4,"stream":true}"#),
        ("/api/generate", r#"{"prompt":"a","options":{"num_predict":4}}"#),
        ("/api/chat", r#"{"messages":[{"content":"a"}],"options":{"num_predict":4}}"#),
    ] {
        let before = support::agent::mono_ns();
        let text = ask(&mock, path, body);
        let after = support::agent::mono_ns();
        let (due, sent) = (numbers(&text, "due_ns"), numbers(&text, "sent_ns"));
        assert_eq!((due.len(), sent.len()), (4, 4), "{path}: {text}");
        assert!(due[0] >= before + 20_000_000, "{path}: ttft counts from the request");
        assert!(due.windows(2).all(|two| two[1] - two[0] == 5_000_000), "{path}: {due:?}");
        assert!(due.iter().zip(&sent).all(|(due, sent)| due <= sent), "{path}: never early");
        assert!(sent.iter().all(|sent| *sent < after), "{path}: {sent:?}");
    }
    let truth = ask(&mock, "/truth", "");
    assert_eq!((numbers(&truth, "answers"), numbers(&truth, "events")), (vec![4], vec![16]));
}

/// Eight requests in flight for two slots of 50 ms each: 40 requests a second and no more.
#[test]
fn slots_bound_what_is_served() {
    let mock = Mock::start(&["--ttft", "30ms", "--itl", "10ms", "--slots", "2"]);
    let options = ["--driver", "openai-chat", "--url", &mock.url, "--output-tokens", "3"];
    let load = ["--concurrency", "8", "--requests", "40"];
    let result = measured(&[&options[..], &load].concat());
    assert_eq!(result.counts.ok, 40);
    let rate = result.metrics.requests_per_second.expect("a rate");
    assert!((5.0..=40.5).contains(&rate), "{rate}");
    // Six wait for the two before them: three services long, or nearly so.
    let ttft = result.metrics.ttft_seconds.expect("ttft");
    assert!(ttft.p50 > 0.120 && ttft.min >= 0.030, "{ttft:?}");
    // Tokens come on time once the service has begun.
    let gap = result.metrics.inter_token_seconds.expect("gaps");
    assert!((0.007..0.030).contains(&gap.p50), "{gap:?}");
}

/// Twice the capacity for a second: what waits grows by half of what arrives.
#[test]
fn a_capacity_is_a_rate() {
    let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms", "--capacity", "50/s"]);
    let options = ["--driver", "openai-chat", "--url", &mock.url, "--output-tokens", "2"];
    let load = ["--rate", "100/s", "--process", "constant", "--for", "1s"];
    let result = measured(&[&options[..], &load].concat());
    assert_eq!(result.counts.ok, 100);
    let ttft = result.metrics.ttft_seconds.expect("ttft");
    // The last arrives after 0.99 s and begins after 1.98 s.
    assert!((0.98..4.0).contains(&ttft.max), "{ttft:?}");
    assert!((0.45..2.0).contains(&ttft.p50), "{ttft:?}");
}

#[test]
fn clients_that_leave_free_their_place() {
    let mock = Mock::start(&["--ttft", "10s", "--slots", "1"]);
    let options = ["--driver", "openai-chat", "--url", &mock.url];
    let load = ["--concurrency", "4", "--requests", "4", "--timeout", "200ms"];
    let result = measured(&[&options[..], &load].concat());
    assert_eq!(result.counts.failed, 4, "nobody waits 10 s");
    let mock = Mock::start(&["--ttft", "400ms", "--slots", "1", "--fault", "hang/2"]);
    let load = ["--concurrency", "1", "--requests", "2", "--timeout", "2s"];
    let options = ["--driver", "openai-chat", "--url", &mock.url, "--output-tokens", "1"];
    let result = measured(&[&options[..], &load].concat());
    assert_eq!((result.counts.ok, result.counts.failed), (1, 1));
}

#[test]
fn a_freeze_is_a_stop_of_everything() {
    let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms", "--freeze", "500ms:700ms"]);
    let options = ["--driver", "openai-chat", "--url", &mock.url, "--output-tokens", "2"];
    let load = ["--rate", "100/s", "--process", "constant", "--for", "2s"];
    let result = measured(&[&options[..], &load].concat());
    assert_eq!(result.counts.ok, 200);
    let total = result.metrics.total_seconds.expect("total");
    assert!((0.65..1.2).contains(&total.max) && total.p50 < 0.3, "{total:?}");
}

#[test]
fn faults_come_together() {
    for faults in [
        &["gzip", "crlf", "reasoning", "multi-token", "chunk-extensions", "trailers"][..],
        &["pings", "no-space", "split-utf8", "role-first", "odd-head", "drip"],
        &["cr", "coalesced", "usage-in-each", "tools", "informational", "stale"],
    ] {
        let mut options = vec!["--ttft", "2ms", "--itl", "1ms"];
        faults.iter().for_each(|fault| options.extend(["--fault", fault]));
        let mock = Mock::start(&options);
        let options = ["--driver", "openai-chat", "--url", &mock.url, "--output-tokens", "10"];
        let result = measured(&[&options[..], &["--concurrency", "2", "--requests", "6"]].concat());
        assert_eq!(result.counts.ok, 6, "{faults:?}: {:?}", result.error_examples);
        let (tokens, source) = (result.metrics.output_tokens, result.metrics.token_source);
        assert_eq!((tokens, source.as_deref()), (Some(60), Some("usage")), "{faults:?}");
    }
}

/// What the faults of content mean over HTTP/2.
#[test]
fn http2_by_prior_knowledge() {
    for (fault, expected) in [
        (None, Ok(60)),
        (Some("role-first"), Ok(60)),
        (Some("reasoning"), Ok(60)),
        (Some("crlf"), Ok(60)),
        (Some("coalesced"), Ok(60)),
        (Some("fat"), Ok(60)),
        (Some("early-eof"), Err("truncated_stream")),
        (Some("error-event"), Err("error_event_in_200")),
        (Some("garbage"), Err("parse")),
        (Some("status-429"), Err("status_4xx")),
        (Some("hang"), Err("timeout_first_byte")),
    ] {
        let options = fault.map_or(vec![], |fault| vec!["--fault", fault]);
        let mock = Mock::start(&[&["--ttft", "2ms", "--itl", "1ms"][..], &options].concat());
        let options = ["--driver", "openai-chat", "--url", &mock.url, "--output-tokens", "10"];
        let load = ["--concurrency", "2", "--requests", "6", "--http2", "--timeout", "900ms"];
        let result = measured(&[&options[..], &load].concat());
        match expected {
            Ok(tokens) => {
                assert_eq!(result.counts.ok, 6, "{fault:?}: {:?}", result.error_examples);
                assert_eq!(result.metrics.output_tokens, Some(tokens), "{fault:?}");
            }
            Err(class) => {
                assert_eq!(result.errors.get(class), Some(&6), "{fault:?}: {:?}", result.errors);
            }
        }
    }
}

#[test]
fn an_ollama_model_is_pulled_and_loaded() {
    let base = ["--concurrency", "2", "--requests", "4", "--output-tokens", "5", "--json"];
    for driver in ["ollama-generate", "ollama-chat", "ollama-embed"] {
        let mock = Mock::start(&["--ttft", "2ms", "--itl", "1ms", "--model", "tiny", "--missing"]);
        let run = |more: &[&str]| {
            measure(&[&["--driver", driver, "--url", &mock.url][..], &base, more].concat())
        };
        let missing = run(&["--model", "tiny"]);
        let stderr = String::from_utf8_lossy(&missing.stderr).into_owned();
        assert_eq!(missing.status.code(), Some(4), "{driver}: {stderr}");
        assert!(stderr.contains("loading model 'tiny': status_4xx"), "{driver}: {stderr}");
        assert!(stderr.contains("--pull"), "{driver}: {stderr}");
        let other = run(&["--model", "other", "--pull"]);
        let stderr = String::from_utf8_lossy(&other.stderr).into_owned();
        assert_eq!(other.status.code(), Some(4), "{driver}: {stderr}");
        assert!(stderr.contains("pulling model 'other'"), "{driver}: {stderr}");
        let pulled = run(&["--model", "tiny", "--pull", "--keep-alive", "10m"]);
        let stderr = String::from_utf8_lossy(&pulled.stderr).into_owned();
        assert!(stderr.contains("model 'tiny' is pulled"), "{driver}: {stderr}");
        assert_eq!(result(&pulled).counts.ok, 4, "{driver}");
        // Now it is there: nothing is pulled, also not for whoever names no model.
        let again = run(&["--pull"]);
        assert!(!String::from_utf8_lossy(&again.stderr).contains("pull"), "{driver}");
        assert_eq!(result(&again).counts.ok, 4, "{driver}");
    }
}

/// A pull that never ends is given up.
#[test]
fn a_pull_has_a_deadline() {
    let mock = Mock::start(&["--ttft", "60s", "--model", "tiny", "--missing"]);
    let options = ["--driver", "ollama-chat", "--url", &mock.url, "--model", "tiny", "--pull"];
    let load = ["--concurrency", "1", "--requests", "1", "--load-deadline", "300ms"];
    let output = measure(&[&options[..], &load].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("pulling model 'tiny': timeout_total: no response within"), "{stderr}");
}

#[test]
fn bodies_have_what_was_asked_for() {
    // The mock answers 400 to what is not JSON, and counts the words of each prompt.
    let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms"]);
    let extra = r#"{"temperature": 0.5, "stop": ["\"x\""], "options": {"top_k": 3}}"#;
    let tools = r#"[{"type": "function", "function": {"name": "f"}}]"#;
    for driver in [
        "openai-completions",
        "openai-chat",
        "openai-embeddings",
        "rerank",
        "ollama-generate",
        "ollama-chat",
        "ollama-embed",
    ] {
        let mut options = vec!["--driver", driver, "--url", &mock.url, "--extra", extra];
        options.extend(["--concurrency", "1", "--requests", "3", "--input-tokens", "7"]);
        options.extend(["--output-tokens", "5"]);
        if driver.ends_with("-chat") {
            options.extend(["--tools", tools]);
        }
        let result = measured(&options);
        assert_eq!(result.counts.ok, 3, "{driver}: {:?}", result.error_examples);
        // A rerank has ten documents and a query.
        let input = if driver == "rerank" { 3 * 7 * 11 } else { 3 * 7 };
        assert_eq!(result.metrics.input_tokens, Some(input), "{driver}");
    }
}

#[test]
fn wrong_model_options_are_explained() {
    let mock = Mock::start(&[]);
    for (options, text) in [
        (&["--driver", "openai-chat", "--extra", "{"][..], "reading --extra"),
        (&["--driver", "openai-chat", "--tools", "{}"], "reading --tools"),
        (&["--driver", "openai-chat", "--extra", r#"{"stream": false}"#], "extra cannot set"),
        (&["--driver", "openai-completions", "--tools", "[{}]"], "tools has no meaning"),
        (&["--driver", "openai-embeddings", "--no-stream"], "stream has no meaning"),
        (&["--driver", "rerank", "--batch", "0"], "batch 0 is out of range"),
        (&["--driver", "ollama-chat", "--keep-alive", "long"], "'long' is not a time"),
        (&["--driver", "openai-chat", "--pull"], "ollama has no meaning"),
    ] {
        let load = ["--url", &mock.url, "--concurrency", "1", "--requests", "1"];
        let output = measure(&[options, &load].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {stderr}");
        assert!(stderr.contains(text) && stderr.contains("hint: "), "{options:?}: {stderr}");
    }
}

/// Every driver has its row in the reference.
#[test]
fn every_driver_is_documented() {
    let help = std::process::Command::new(support::PROGRAM)
        .args(["run", "--help"])
        .output()
        .expect("the help");
    let help = String::from_utf8(help.stdout).expect("text");
    let drivers = help.split("  --driver <DRIVER>\n").nth(1).expect("the option");
    let drivers = drivers.split("  --url").next().expect("the next option");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/drivers.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let words: Vec<&str> = drivers
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ")?.split(':').next())
        .collect();
    assert!(words.len() >= 10, "{words:?}");
    for word in words {
        assert!(page.contains(&format!("\n| `{word}` | ")), "{word} has no row");
    }
}
