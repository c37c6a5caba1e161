//! Strange recipe files, run folders of others, slow and full file systems: cases 19, 23, 24 and
//! 48 of NASTY.md.

use std::{
    fs,
    os::unix::fs::{chown, symlink},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    cluster::Case,
    nasty::{ASK, started},
    recipes,
};

const MINUTES: Duration = Duration::from_secs(180);

/// Case 19, by sbatch: what the kind of file is decides; its name does not.
#[test]
fn strange_recipe_files() {
    let case = case!("strange");
    let good = recipes::service("");
    case.write("large", &"#".repeat(1 << 20));
    fs::write(case.outside.join("latin1"), b"aifb: 1\nname: caf\xe9\n").unwrap();
    case.sh("mkfifo fifo; mkdir folder; ln -s loop loop").ok();
    case.write("secret", &good);
    case.sh("chmod 0 secret").ok();
    let long = format!("{}.yaml", "x/".repeat(2040));
    for (name, words) in [
        ("large", "1048576 bytes"),
        ("latin1", "not UTF-8"),
        ("fifo", "it is a pipe"),
        ("folder", "it is a folder"),
        ("/dev/zero", "it is a device"),
        ("loop", "symbolic links"),
        ("secret", "Permission denied"),
        (long.as_str(), "No such file"),
        (&"y".repeat(4097), "longer than 4096 bytes"),
        ("a\nb.yaml", "line break"),
    ] {
        let option = format!("--aifb-recipe={name}");
        let begun = Instant::now();
        let ran = case.run(&["sbatch", "-J", "strange", "--parsable", &option, "--wrap=true"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{name:.20}: {ran:?}");
        assert!(ran.stderr.contains(words), "{name:.20}: {ran:?}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{name:.20}: {:?}", begun.elapsed());
    }
    assert_eq!(case.run(&["squeue", "-h", "-n", "strange"]).ok(), "");
    assert!(case.runs().is_empty());

    for name in ["%s%n;x.yaml", "a b'\"$(id).yaml"] {
        case.write(name, &good);
        let job = case.sbatch(&[&format!("--aifb-recipe={name}")], ASK);
        assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{name}: {}", case.state_text());
        assert_eq!(case.read("job.out"), "hello\nspank 0\n", "{name}");
    }
    symlink("a b'\"$(id).yaml", case.outside.join("link.yaml")).unwrap();
    let job = case.sbatch(&["--aifb-recipe=link.yaml", "--aifb-runs=linked"], ASK);
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
}

/// Case 24: whoever knows the job's number first does not get the run into a place of theirs.
#[test]
fn run_folders_made_by_somebody_else() {
    let case = case!("others");
    case.write("x.yaml", &recipes::service(""));
    case.sh("mkdir -m 1777 shared; mkdir target").ok();
    let bob = |script: &str| {
        let shared = format!("{}/shared", case.inside);
        case.cluster.run("bob", "login", &shared, &["bash", "-c", script]).ok()
    };
    for make in ["mkdir -m 777 $RUN", "ln -s ../target $RUN", "ln -s /nowhere $RUN", "touch $RUN"] {
        let job = case.sbatch(
            &["--aifb-recipe=x.yaml", "--aifb-runs=shared", "--hold"],
            "echo the script has started",
        );
        let run = format!("aifb-{job}");
        bob(&make.replace("$RUN", &run));
        case.run(&["scontrol", "release", &job.to_string()]).ok();
        assert_eq!(case.wait(job, MINUTES).exit_code, 2, "{make}: {}", case.read("job.out"));
        let output = case.read("job.out");
        assert!(output.contains(&run) && output.contains("exists"), "{make}: {output}");
        assert!(!output.contains("has started"), "{make}: {output}");
        case.nothing_left(job);
        let inside = case.outside.join("shared").join(&run);
        let left = fs::read_dir(inside).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{make}");
    }
    assert_eq!(fs::read_dir(case.outside.join("target")).unwrap().count(), 0);
}

/// A file system that only alice can enter, root cannot: as a home on NFS with root_squash is.
/// It is mounted on n2 and ends with the returned guard.
struct Private<'a> {
    case: &'a Case,
    folder: String,
}

impl<'a> Private<'a> {
    /// Makes it with room for `megabytes`.
    fn mount(case: &'a Case, megabytes: u32) -> Self {
        let image = case.outside.join("image");
        fs::File::create(&image).unwrap().set_len(u64::from(megabytes) << 20).unwrap();
        // 1001 is alice.
        let made = Command::new("/usr/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext2", "-E", "root_owner=1001:1001"])
            .arg(&image)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        chown(&image, Some(1001), Some(1001)).unwrap();
        case.sh("mkdir private").ok();
        let folder = format!("{}/private", case.inside);
        let private = Self { case, folder };
        private.alice(&format!("fuse2fs -o rw {0}/image {0}/private", case.inside));
        private
    }

    fn alice(&self, script: &str) -> String {
        self.case.cluster.run("alice", "n2", "/", &["bash", "-c", script]).ok()
    }

    /// Stops or continues its server.
    fn server(&self, signal: &str) {
        self.alice(&format!("pkill -{signal} -f 'fuse2fs.*{}'", self.folder));
    }
}

impl Drop for Private<'_> {
    fn drop(&mut self) {
        let script = format!("pkill -CONT -f 'fuse2fs.*{0}'; fusermount3 -u -z {0}", self.folder);
        self.case.cluster.run("alice", "n2", "/", &["bash", "-c", &script]);
    }
}

/// Cases 23 and 48: root may not enter the folder of the runs, and for 4 s nobody gets an answer
/// from its file system.
#[test]
fn a_run_folder_that_root_cannot_enter_and_that_stalls() {
    let case = case!("squash");
    case.write("x.yaml", &recipes::service_and_load("", "8s"));
    let private = Private::mount(&case, 64);
    let refused = case.cluster.root("n2", &format!("ls {}", private.folder));
    assert_ne!(refused.code, 0, "root can enter: {refused:?}");
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "--aifb-runs=private", "-w", "n2"],
        "touch started; aifb load; echo load $?; aifb report --json > report.json",
    );
    started(&case);
    std::thread::sleep(Duration::from_secs(2));
    private.server("STOP");
    std::thread::sleep(Duration::from_secs(4));
    private.server("CONT");
    let end = case.wait(job, MINUTES);
    let output = case.read("job.out");
    assert_eq!(end.state, "COMPLETED", "{output}");
    assert!(output.contains("load 0"), "{output}");
    let report: serde_json::Value = serde_json::from_str(&case.read("report.json")).unwrap();
    // 50/s for 8 s, whatever the file system did; and no request waited for it.
    assert_eq!(report["counts"]["ok"], 400, "{report:#}");
    let lag = report["metrics"]["client_lag_seconds"]["max"].as_f64().unwrap();
    assert!(lag < 3.5, "a request waited for the file system: {lag} s");
}

/// Case 48: the file system of the runs is full.
#[test]
fn a_full_run_folder() {
    let case = case!("full");
    case.write("x.yaml", &recipes::service_and_load("", "3s"));
    case.sh("mkdir small").ok();
    let small = format!("{}/small", case.inside);
    let root = |script: &str| case.cluster.root("n1", script).ok();
    root(&format!("mount -t tmpfs -o size=256k,uid=1001,gid=1001 small {small}"));
    let filled = |room: u32| {
        root(&format!(
            "rm -f {small}/filler; free=$(df -k --output=avail {small} | tail -n 1); \
             head -c $(((free - {room}) * 1024)) /dev/zero > {small}/filler"
        ));
        let job = case.sbatch(
            &["--aifb-recipe=x.yaml", "--aifb-runs=small", "-w", "n1"],
            "aifb load; echo load $?",
        );
        case.wait(job, MINUTES);
        (job, case.read("job.out"))
    };
    // No room for anything: the run does not start, and says why.
    let (_, output) = filled(0);
    assert!(output.contains("No space left on device"), "{output}");
    assert!(!output.contains("load "), "{output}");
    // Room for a start, not for the records: the job goes on and ends, whatever is lost.
    let (job, output) = filled(48);
    assert!(output.contains("load "), "{output}");
    root(&format!("umount {small}"));
    case.nothing_left(job);
}
