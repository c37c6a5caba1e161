//! An engine beside a running sampler.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aifb_schema::{recipe::Tls, samples};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::{Address, Engines, poll::PATIENCE};
use crate::{
    export::fixture::{Keys, Reply, Stand},
    http::tls,
    sample::{Attached, Config, Sampler, Watched},
};

const PAGE: &str = "# HELP e:running Requests that run\n# TYPE e:running gauge\n\
    e:running{model=\"m\",node=\"theirs\"} 3\n# TYPE e:wait_seconds histogram\n\
    e:wait_seconds_bucket{le=\"1\"} 4\ne:wait_seconds_sum 2.5\ne:wait_seconds_count 4\n";

fn plain(address: SocketAddr) -> Address {
    Address { url: format!("http://{address}/metrics"), tls: None }
}

fn config(folder: &Path) -> Config {
    Config {
        period: Duration::from_millis(100),
        node: "n1".into(),
        run_id: "local-1".into(),
        job_id: Some(7),
        file: folder.join("samples.bin"),
        proc_root: PathBuf::from("/proc"),
        cgroup_root: PathBuf::from("/sys/fs/cgroup"),
        sys_root: PathBuf::from("/sys"),
        nvml: None,
    }
}

/// An authority, and certificates of it for a server on 127.0.0.1 and for a client, as files.
fn keys(folder: &Path) -> Keys {
    let keep = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut authority = CertificateParams::new(vec!["authority".to_owned()]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = keep("ca.pem", &authority.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(authority, key);
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let (cert, key) = signed("client.test");
    Keys {
        ca,
        cert: keep("client.pem", &cert),
        key: keep("client.key", &key),
        server: signed("127.0.0.1"),
    }
}

#[test]
fn a_page_is_asked_for_by_https_of_whom_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys(folder.path());
    let answer = |_: usize, _: &_| Reply::Status(200, PAGE.to_owned());
    let (open, closed) =
        (Stand::start_tls(&keys, false, answer), Stand::start_tls(&keys, true, answer));
    let engines = Engines::default();
    let ask = |name: &str, stand: &Stand, tls: Tls| {
        let url = format!("https://{}/metrics", stand.address);
        engines.set(name, 0, Address { url, tls: Some(tls) });
    };
    let trusting = || Tls { ca: Some(keys.ca.clone()), ..Tls::default() };
    let insecure = Tls { insecure: true, ..Tls::default() };
    let (cert, key) = (Some(keys.cert.clone()), Some(keys.key.clone()));
    ask("trusted", &open, trusting());
    ask("insecure", &open, insecure);
    ask("known", &closed, Tls { cert, key, ..trusting() });
    ask("untrusted", &open, Tls::default());
    ask("unknown", &closed, trusting());
    ask("fileless", &open, Tls { ca: Some("/nonexistent/ca".into()), ..Tls::default() });
    let attached = Attached { sources: vec![Box::new(engines.clone())], sink: None };
    let handle = Sampler::start(config(folder.path()), Watched::default(), attached).unwrap();
    let polls = |page: &str, name: &str, outcome: &str| -> u32 {
        let service = format!("service=\"{name}\",replica=\"0\",outcome=\"{outcome}\"}} ");
        let value = page.lines().find_map(|line| Some(line.split_once(&service)?.1));
        value.map_or(0, |value| value.parse().unwrap())
    };
    let begun = Instant::now();
    let good = ["trusted", "insecure", "known"];
    let bad = ["untrusted", "unknown", "fileless"];
    let page = loop {
        let page = String::from_utf8(handle.metrics("").1).unwrap();
        let enough = |names: [&str; 3], outcome: &str| {
            names.iter().all(|name| polls(&page, name, outcome) >= 2)
        };
        if enough(good, "ok") && enough(bad, "failed") {
            break page;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{page}");
        thread::sleep(Duration::from_millis(10));
    };
    for (good, bad) in good.into_iter().zip(bad) {
        assert_eq!((polls(&page, good, "failed"), polls(&page, bad, "ok")), (0, 0), "{page}");
    }
    handle.stop().unwrap();
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let Keys { ca, cert, key, .. } = keys(folder.path());
    let told = |tls: Tls| {
        let made = tls::agent(PATIENCE, &tls);
        format!("{:#}", made.err().unwrap())
    };
    let of_ca = |ca: &str| Tls { ca: Some(ca.to_owned()), ..Tls::default() };
    assert_eq!(
        told(of_ca(&key)),
        format!("reading certificates '{key}': there is none in PEM form")
    );
    assert!(told(of_ca("/nonexistent/a")).starts_with("reading '/nonexistent/a': No such file"));
    let pair = |cert: &str, key: &str| Tls {
        cert: Some(cert.to_owned()),
        key: Some(key.to_owned()),
        ..Tls::default()
    };
    assert_eq!(told(pair(&cert, &ca)), format!("reading key '{ca}': there is none in PEM form"));
    assert!(tls::agent(PATIENCE, &pair(&cert, &key)).is_ok());
}

#[test]
fn an_engine_is_asked_once_a_tick_recorded_and_shown() {
    let stand = Stand::start(|_, request| {
        assert_eq!(request.line, "GET /metrics HTTP/1.1");
        Reply::Status(200, PAGE.to_owned())
    });
    let hanging = Stand::start(|_, _| Reply::After(Duration::from_secs(3600), 200));
    let folder = tempfile::tempdir().unwrap();
    let engines = Engines::default();
    engines.set("llm", 1, plain(stand.address));
    engines.set("stuck", 0, plain(hanging.address));
    let config = config(folder.path());
    let attached = Attached { sources: vec![Box::new(engines.clone())], sink: None };
    let handle = Sampler::start(config.clone(), Watched::default(), attached).unwrap();
    let running = "\ne:running{run_id=\"local-1\",node=\"n1\",job=\"7\",service=\"llm\",replica=\"1\",\
        model=\"m\",exported_node=\"theirs\"} 3\n";
    let begun = Instant::now();
    let shown = || String::from_utf8(handle.metrics("").1).unwrap();
    while !(shown().contains(running) && stand.requests() > 5) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", shown());
        thread::sleep(Duration::from_millis(10));
    }
    let open = String::from_utf8(handle.metrics("application/openmetrics-text").1).unwrap();
    assert!(open.contains("# TYPE e:wait_seconds_sum unknown\n"), "{open}");
    engines.remove("llm", 1);
    let asked = stand.requests();
    handle.stop().unwrap();
    let recording = samples::read(&std::fs::read(&config.file).unwrap()).unwrap();
    assert!(asked <= recording.samples.len(), "{asked} of {}", recording.samples.len());
    // Asked again only when its time was over.
    let times_over = begun.elapsed().as_secs() / PATIENCE.as_secs();
    assert!(hanging.requests() as u64 <= 1 + times_over, "{}", hanging.requests());
    let names: Vec<&str> = recording
        .series
        .values()
        .map(|series| series.name.as_str())
        .filter(|name| name.starts_with("engine/"))
        .collect();
    assert_eq!(
        names,
        ["engine/e:running", "engine/e:wait_seconds_sum", "engine/e:wait_seconds_count"]
    );
}
