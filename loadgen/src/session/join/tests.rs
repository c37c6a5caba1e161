use aifb_schema::units::Span;

use super::*;

fn options(rank: Option<u32>, ranks: Option<u32>) -> JoinOptions {
    JoinOptions { join: Some("/f".into()), rank, ranks, lead: Span::secs(2) }
}

#[test]
fn the_place_comes_from_options_or_slurm() {
    let slurm = |name: &str| match name {
        "SLURM_PROCID" => Some("3".to_owned()),
        "SLURM_NTASKS" => Some("8".to_owned()),
        _ => None,
    };
    let place = |options: &JoinOptions, variable: &dyn Fn(&str) -> Option<String>| {
        Join::new(options, variable).map(|join| join.map(|join| (join.rank, join.size)))
    };
    assert_eq!(place(&options(None, None), &slurm).unwrap(), Some((3, 8)));
    assert_eq!(place(&options(Some(1), Some(2)), &slurm).unwrap(), Some((1, 2)));
    let nothing = |_: &str| None;
    let error = place(&options(None, Some(2)), &nothing).unwrap_err().to_string();
    assert!(error.contains("number of ranks are unknown"), "{error}");
    let error = place(&options(Some(2), Some(2)), &nothing).unwrap_err().to_string();
    assert!(error.contains("rank 2 of 2"), "{error}");
    let without = JoinOptions { join: None, ..options(None, None) };
    assert_eq!(place(&without, &nothing).unwrap(), None);
}

fn join(folder: &Path) -> Join {
    let lead = Duration::from_secs(2);
    Join { folder: folder.to_owned(), rank: 1, size: 2, lead, because: None }
}

/// On another node the wall clock counts, with the errors of both; a start that has passed is
/// said to be late.
#[test]
fn the_start_is_exact_on_one_node_and_has_an_error_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let join = join(folder.path());
    let (mono_ns, epoch_ns) = join.instant().unwrap();
    let here = StartFile { boot: boot(), mono_ns, epoch_ns, error_ns: 5_000, because: None };
    let own = join.own_start(&here).unwrap();
    assert_eq!((own.at_mono_ns, own.clock_error_ns), (mono_ns, 0));
    let elsewhere = StartFile { boot: "other".into(), mono_ns: 1, ..here.clone() };
    let own = join.own_start(&elsewhere).unwrap();
    assert!(own.at_mono_ns.abs_diff(mono_ns) < 50_000_000, "{own:?}");
    assert!(own.clock_error_ns >= 5_000, "{own:?}");
    let past = StartFile { mono_ns: 1, ..here };
    let error = join.own_start(&past).unwrap_err().to_string();
    assert!(error.contains("saw the start") && error.contains("--lead"), "{error}");
}

/// What was there before would be taken for this load's.
#[test]
fn a_folder_inside_a_run_is_used_once() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |rank| {
        let why = "the agent is gone".to_owned();
        Join::inside(folder.path().to_owned(), (rank, 2), Duration::ZERO, why)
    };
    assert!(inside(0).is_ok() && record::start::because(folder.path()).is_none());
    fs::write(record::checkpoint_path(folder.path(), 1), "").unwrap();
    assert!(inside(0).is_ok() && inside(1).unwrap_err().contains("already exists"));
    fs::write(folder.path().join(file::RESULT), "").unwrap();
    assert!(inside(0).unwrap_err().contains("result.json"));
}

#[test]
fn files_are_new_and_hostile_ones_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let join = join(folder.path());
    let path = folder.path().join("start.json");
    join.write_new(&path, &1).unwrap();
    let again = join.write_new(&path, &2).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&path).unwrap(), "1");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    fs::write(&path, vec![b'['; 2 << 20]).unwrap();
    let soon = Instant::now() + Duration::from_secs(1);
    let going = Arc::new(AtomicBool::new(false));
    let error = join.wait::<StartFile>("start.json", soon, &going, "x").unwrap_err();
    assert!(error.to_string().contains("start.json"), "{error}");
    let error = join.wait::<StartFile>("none.json", Instant::now(), &going, "nobody came");
    assert!(error.unwrap_err().to_string().contains("nobody came within 60 s"));
    let inside = Join { because: Some("the agent is gone".into()), ..join.clone() };
    let error = inside.wait::<StartFile>("none.json", Instant::now(), &going, "nobody came");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("since the agent is gone") && error.contains("no worker"), "{error}");
    going.store(true, Ordering::Relaxed);
    let error = join.wait::<StartFile>("none.json", soon, &going, "x").unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
}
