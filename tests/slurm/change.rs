//! The test cluster for a test that changes it for everybody, and its return to what it was.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    cluster::{Case, Cluster, Ran, cluster},
    recipes,
};

const MINUTES: Duration = Duration::from_secs(180);

/// Asks the service.
pub const ASK: &str = "curl -sf $SERVICE_URL/";

/// The cluster for one test alone; its end puts everything back as it was.
pub struct Alone {
    pub case: Case,
    pub cluster: Cluster,
    slurm_conf: String,
    /// The plugin as it was.
    pub plugin: Vec<u8>,
    reconfigured: bool,
    _only: MutexGuard<'static, ()>,
}

static ONE: Mutex<()> = Mutex::new(());

impl Alone {
    /// `None`, loudly, without a cluster.
    pub fn on(name: &str) -> Option<Self> {
        let cluster = cluster()?;
        let only = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let alone = Self {
            case: Case::new(cluster.clone(), name),
            slurm_conf: fs::read_to_string(cluster.state().join("slurm/slurm.conf")).unwrap(),
            plugin: fs::read(plugin(&cluster)).unwrap(),
            reconfigured: false,
            cluster,
            _only: only,
        };
        alone.case.write("x.yaml", &recipes::service(""));
        Some(alone)
    }

    /// Replaces the file of plugstack.conf.d.
    pub fn plugstack(&self, text: &str) {
        put(&self.cluster.state().join("slurm/plugstack.conf.d/aifb.conf"), text.as_bytes(), 0o644);
    }

    /// Changes slurm.conf, has every daemon read it and waits for idle nodes.
    pub fn configure(&mut self, change: impl FnOnce(&str) -> String) {
        self.tell(change);
        self.all_idle();
    }

    /// Changes slurm.conf and has every daemon read it.
    pub fn tell(&mut self, change: impl FnOnce(&str) -> String) {
        self.reconfigured = true;
        let text = change(&self.slurm_conf);
        put(&self.cluster.state().join("slurm/slurm.conf"), text.as_bytes(), 0o644);
        // Starts are told in whole seconds: this one must not be in the second of the last.
        std::thread::sleep(Duration::from_millis(1100));
        let before = self.started();
        self.cluster.root("ctl", "scontrol reconfigure").ok();
        // scontrol does not wait for the nodes; each slurmd starts anew.
        self.case.until("new slurmds", MINUTES, || {
            let now = self.started();
            // Until a slurmd has told it, the controller shows "None" for the time.
            let anew = |(node, time): (&String, &String)| {
                now.get(node).is_some_and(|new| new != time && new != "None")
            };
            before.iter().all(anew).then_some(())
        });
    }

    /// When the slurmd of each node started, as the controller knows it.
    fn started(&self) -> BTreeMap<String, String> {
        let nodes = self.cluster.root("ctl", "scontrol show nodes --oneliner").stdout;
        let of = |line: &str, key: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(key).map(str::to_owned))
        };
        let both = |line: &str| Some((of(line, "NodeName=")?, of(line, "SlurmdStartTime=")?));
        nodes.lines().filter_map(both).collect()
    }

    /// Adds lines to slurm.conf.
    pub fn add(&mut self, lines: &str) {
        self.configure(|text| format!("{text}\n{lines}\n"));
    }

    pub fn all_idle(&self) {
        self.case.until("idle nodes", MINUTES, || {
            let states = self.case.run(&["sinfo", "-h", "-N", "-p", "cpu", "-o", "%T"]).stdout;
            (!states.is_empty() && states.lines().all(|state| state == "idle")).then_some(())
        });
    }

    /// Submits a script with the flag, waits for its end; the job, which must have ended well.
    #[track_caller]
    pub fn completed(&self, options: &[&str], script: &str) -> u32 {
        let mut words = vec!["--aifb-recipe=x.yaml"];
        words.extend(options);
        let job = self.case.sbatch(&words, script);
        self.well(job);
        job
    }

    #[track_caller]
    pub fn well(&self, job: u32) {
        let end = self.case.wait(job, MINUTES);
        assert_eq!(end.state, "COMPLETED", "{}\n{}", self.case.state_text(), self.logs());
        self.case.nothing_left(job);
    }

    /// A job with the flag gets its service.
    #[track_caller]
    pub fn flag_works(&self, options: &[&str]) {
        self.completed(options, ASK);
        let output = self.case.read("job.out");
        assert!(output.contains("hello"), "{options:?}: {output}\n{}", self.logs());
    }

    /// Jobs without the flag run and print what they would print without the plugin; the two
    /// commands, for a look at what Slurm itself says.
    #[track_caller]
    pub fn others_run(&self, on: &str) -> [Ran; 2] {
        let script = "echo ran; env | grep -E '^(AIFB|SERVICE|.*SPANK)'; pgrep -a aifb; true";
        let step = ["srun", "--mem=50", "-w", on, "bash", "-c", script];
        let step = self.case.run(&step);
        assert_eq!((step.code, step.stdout.as_str()), (0, "ran\n"), "{step:?}");
        let wrap = format!("--wrap={script}");
        let _absent = fs::remove_file(self.case.outside.join("plain"));
        let batch = ["sbatch", "--parsable", "--mem=50", "-w", on, "-o", "plain", &wrap];
        let batch = self.case.run(&batch);
        assert!(batch.stdout.trim().parse::<u32>().is_ok(), "{batch:?}");
        let printed = self.case.until("the job's output", MINUTES, || {
            Some(self.case.read("plain")).filter(|text| !text.is_empty())
        });
        assert_eq!(printed, "ran\n", "{batch:?}");
        let nodes = self.case.run(&["sinfo", "-hN", "-o", "%N %T"]).ok();
        assert!(!nodes.contains("drain") && !nodes.contains("down"), "{nodes}");
        [step, batch]
    }

    /// What slurmd wrote last, for a failure.
    pub fn logs(&self) -> String {
        let script = "tail -n 8 /var/log/slurm/slurmd.log";
        let logs = self.cluster.nodes().into_iter();
        logs.map(|node| format!("{node}: {}", self.cluster.root(&node, script).stdout)).collect()
    }

    /// Starts a job with the flag that goes on once the returned file is there.
    pub fn waiting(&self, options: &[&str], then: &str) -> (u32, PathBuf) {
        let mut words = vec!["--aifb-recipe=x.yaml"];
        words.extend(options);
        let script = format!("touch started; until [ -e go ]; do sleep 0.1; done; {then}");
        let job = self.case.sbatch(&words, &script);
        self.case.until("the script", MINUTES, || {
            self.case.outside.join("started").exists().then_some(())
        });
        (job, self.case.outside.join("go"))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        put(&plugin(&self.cluster), &self.plugin, 0o755);
        self.cluster.plugin_on();
        if std::thread::panicking() {
            self.cluster.root("ctl", "scancel -u alice");
        }
        if self.reconfigured {
            let conf = self.cluster.state().join("slurm/slurm.conf");
            put(&conf, self.slurm_conf.as_bytes(), 0o644);
            for name in ["gres.conf", "job_container.conf", "prolog"] {
                let _absent = fs::remove_file(self.cluster.state().join("slurm").join(name));
            }
            let script = "scontrol reconfigure; scontrol update NodeName=ALL State=RESUME";
            let ran = self.cluster.root("ctl", script);
            if !std::thread::panicking() {
                // Nodes that were never down cannot be resumed, which is not the question.
                let _resumed = ran;
                self.all_idle();
            }
        }
    }
}

/// The installed plugin.
pub fn plugin(cluster: &Cluster) -> PathBuf {
    cluster.state().join("installed/opt/aifb/lib/slurm/aifb_spank.so")
}

/// Replaces a file by rename, as an installation does.
pub fn put(path: &Path, bytes: &[u8], mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}
