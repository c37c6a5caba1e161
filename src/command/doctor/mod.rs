//! `aifb doctor`: one line for each thing that could keep a benchmark from running here.

mod cluster;
mod node;
mod nodes;

use aifb_schema::names::exit;
use serde::{Deserialize, Serialize};

use crate::{cli::DoctorArgs, error::Result, output};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// Something will not work, or not as well.
    Warn,
    /// Nothing will work before it is mended.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Check {
    /// What.
    name: String,
    verdict: Verdict,
    /// What was seen.
    seen: String,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn new(name: &str, verdict: Verdict, seen: impl Into<String>, fix: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            verdict,
            seen: seen.into(),
            fix: fix.filter(|_| verdict != Verdict::Ok).map(str::to_owned),
        }
    }

    fn ok(name: &str, seen: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, seen, None)
    }

    fn warn(name: &str, seen: impl Into<String>, fix: &str) -> Self {
        Self::new(name, Verdict::Warn, seen, Some(fix))
    }

    fn fail(name: &str, seen: impl Into<String>, fix: &str) -> Self {
        Self::new(name, Verdict::Fail, seen, Some(fix))
    }

    fn line(&self) -> String {
        let word = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let fix = self.fix.as_ref().map_or(String::new(), |fix| format!("\n      fix: {fix}"));
        format!("{word}  {}: {}{fix}", self.name, self.seen)
    }
}

pub(super) fn run(args: &DoctorArgs) -> Result<i32> {
    if args.node_report {
        output::out_json_line(&nodes::own_report());
        return Ok(0);
    }
    let mut checks = node::programs();
    checks.extend(node::machine());
    checks.extend(node::run_root(&args.root));
    checks.extend(cluster::checks());
    if args.admin {
        checks.extend(nodes::checks(args));
    }
    if args.json {
        output::out_json(&checks);
    } else {
        for check in &checks {
            output::out(check.line());
        }
    }
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { exit::CHECK_FAILED } else { exit::OK })
}
