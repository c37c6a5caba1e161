//! A stream beside its checkpoint and quarantine.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use aifb_schema::recipe::{Logging, LokiEncoding};
use loki_stand_in::{Config, Receiver};

use super::{
    Source, Target,
    buffers::Buffers,
    checkpoint::{Checkpoint, State},
    push::Client,
    quarantine::Quarantine,
    stream::{Stream, Tools},
};

/// Else a shipper that is killed behind another stream's record puts the same lines aside twice.
#[test]
fn what_is_put_aside_is_on_record_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    fs::write(&path, "good\nbad\n").unwrap();
    let refuse = Some("bad".into());
    let receiver = Receiver::start(Config { refuse, ..Config::default() }).unwrap();
    let client = Client::new(Target {
        url: receiver.url(),
        tenant: None,
        token: None,
        encoding: LokiEncoding::Protobuf,
    });
    let mut checkpoint = Checkpoint::open(&folder.path().join("checkpoint")).unwrap();
    let mut quarantine = Quarantine::new(folder.path().join("quarantine"), 0);
    let labels = BTreeMap::from([("job".to_owned(), "x".to_owned())]);
    let metadata = std::collections::BTreeMap::new();
    let source =
        Source { name: "a.log".into(), path, labels, metadata, join: false, rotates: false };
    let mut stream = Stream::new(source, State::new("a.log"));
    let (mut buffers, begun) = (Buffers::new(), Instant::now());
    while quarantine.bytes() == 0 {
        let _turn = stream.turn(&mut Tools {
            client: &client,
            checkpoint: &mut checkpoint,
            quarantine: &mut quarantine,
            buffers: &mut buffers,
            logging: Logging::default(),
            last: true,
        });
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is refused");
    }
    let State { quarantined, acknowledged, quarantine_bytes, .. } = checkpoint.state("a.log");
    assert_eq!((quarantined, acknowledged, quarantine_bytes), (1, 1, quarantine.bytes()));
}
