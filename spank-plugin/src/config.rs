//! The administrator's words behind the plugin's path in plugstack.conf.

use std::ffi::{CStr, CString};
use std::time::Duration;

/// How long a job start may wait for healthy services where plugstack.conf does not say: big
/// models load for half an hour from a cold file system.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// Upper bound of `wait_max=`: longer than any job of a usual site, and far from overflow.
const WAIT_MAX_BOUND: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What plugstack.conf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Absolute path of aifb-agent.
    pub(crate) launcher: CString,
    /// How long a job start waits for healthy services at most.
    pub(crate) wait_max: Duration,
    /// The partitions whose jobs may use the plugin; empty means all.
    pub(crate) partitions: Vec<String>,
    /// Shortest sampling interval a recipe may ask for, as written; absent means no bound.
    pub(crate) min_sample: Option<CString>,
    /// The administrator has switched the plugin off.
    pub(crate) off: bool,
}

impl Config {
    /// Reads the words.
    ///
    /// # Errors
    /// What is wrong with which word. A plugin with a wrong word does nothing: a limit that the
    /// administrator misspelt must not be passed over.
    pub(crate) fn parse(words: &[&CStr]) -> Result<Self, String> {
        let mut launcher = None;
        let mut config = Self {
            launcher: CString::default(),
            wait_max: WAIT_MAX,
            partitions: Vec::new(),
            min_sample: None,
            off: false,
        };
        for word in words {
            let text = word.to_str().map_err(|_| format!("argument {word:?}: not UTF-8"))?;
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            let problem = |cause: &str| format!("argument '{text}': {cause}");
            match key {
                "launcher" if value.starts_with('/') => launcher = CString::new(value).ok(),
                "launcher" => return Err(problem("not an absolute path")),
                "wait_max" => {
                    config.wait_max = parse_duration(value)
                        .filter(|time| !time.is_zero() && *time <= WAIT_MAX_BOUND)
                        .ok_or_else(|| problem("not a time such as 90s, 60m or 2h"))?;
                }
                "partitions" => {
                    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    config.partitions = names.map(str::to_owned).collect();
                    if config.partitions.is_empty() {
                        return Err(problem("names no partition"));
                    }
                }
                "min_sample" => {
                    if parse_duration(value).is_none_or(|time| time.is_zero()) {
                        return Err(problem("not a time such as 100ms or 1s"));
                    }
                    config.min_sample = CString::new(value).ok();
                }
                "off" if text == "off" => config.off = true,
                #[cfg(feature = "test-panic")]
                "panic" => {}
                _ => return Err(problem("not known")),
            }
        }
        match launcher {
            Some(path) => config.launcher = path,
            None if config.off => {}
            None => return Err("no launcher=PATH of aifb-agent".to_owned()),
        }
        Ok(config)
    }

    /// Whether jobs of this partition may use the plugin.
    pub(crate) fn allows(&self, partition: &str) -> bool {
        self.partitions.is_empty() || self.partitions.iter().any(|name| name == partition)
    }
}

/// A number and a unit of ms, s, m or h.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Config, String> {
        let words: Vec<CString> = words.iter().map(|w| CString::new(*w).unwrap()).collect();
        Config::parse(&words.iter().map(|w| &**w).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_read() {
        let words = ["launcher=/opt/aifb-agent", "wait_max=90s", "partitions=gpu,cpu"];
        let config = parse(&words).unwrap();
        assert_eq!(config.launcher.as_c_str(), c"/opt/aifb-agent");
        assert_eq!(config.wait_max, Duration::from_secs(90));
        assert!(config.allows("gpu") && config.allows("cpu") && !config.allows("gp"));
        assert!(!config.off && config.min_sample.is_none());
    }

    #[test]
    fn without_words_all_partitions_may_wait_an_hour() {
        let config = parse(&["launcher=/a"]).unwrap();
        assert_eq!(config.wait_max, Duration::from_secs(3600));
        assert!(config.allows("any"));
    }

    #[test]
    fn off_needs_no_launcher() {
        assert!(parse(&["off"]).unwrap().off);
    }

    #[test]
    fn wrong_words_are_named() {
        for (words, expected) in [
            (&["launcher=agent"][..], "argument 'launcher=agent': not an absolute path"),
            (&["launcher=/a", "wait_max=5"], "argument 'wait_max=5': not a time"),
            (&["launcher=/a", "wait_max=0s"], "argument 'wait_max=0s': not a time"),
            (&["launcher=/a", "wait_max=99999999999h"], "argument 'wait_max=99999999999h': not"),
            (&["launcher=/a", "wait_max=18446744073709551615h"], "argument 'wait_max="),
            (&["launcher=/a", "partitions=,"], "argument 'partitions=,': names no partition"),
            (&["launcher=/a", "min_sample=fast"], "argument 'min_sample=fast': not a time"),
            (&["launcher=/a", "Off"], "argument 'Off': not known"),
            (&["launcher=/a", "off=no"], "argument 'off=no': not known"),
            (&[], "no launcher=PATH"),
        ] {
            let problem = parse(words).unwrap_err();
            assert!(problem.starts_with(expected), "{words:?}: {problem}");
        }
    }
}
