//! Words as a shell reads them back.

use std::ffi::OsStr;

/// A value in quotes, whatever is in it.
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// A command line that can be pasted; words that need no quotes have none.
pub(crate) fn line<S: AsRef<OsStr>>(words: &[S]) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| {
            let word = word.as_ref().to_string_lossy();
            let plain = !word.is_empty()
                && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=./:,+@%".contains(&b));
            if plain { word.into_owned() } else { quoted(&word) }
        })
        .collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(script: &str) -> String {
        let shell = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
        String::from_utf8(shell.stdout).unwrap()
    }

    #[test]
    fn words_survive_the_shell() {
        let words = ["printf", "%s|", "a b", "it's", "", "x=y"];
        let line = line(&words);
        assert_eq!(printed(&line), "a b|it's||x=y|");
        assert!(line.starts_with("printf "), "{line}");
    }

    #[test]
    fn quotes_survive_the_shell() {
        let value = "a'b \"$(c)\"\n";
        assert_eq!(printed(&format!("printf %s {}", quoted(value))), value);
    }
}
