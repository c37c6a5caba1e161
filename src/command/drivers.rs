//! `aifb drivers`: the protocols that a load can speak.

use aifb_schema::recipe::{DRIVERS, DriverSpec};
use serde_json::{Value, json};

use crate::{cli::DriversArgs, error::Result, output};

pub(super) fn run(args: &DriversArgs) -> Result<i32> {
    if args.json {
        let drivers: Vec<Value> = DRIVERS.iter().map(|spec| described(spec)).collect();
        output::out_json(&drivers);
        return Ok(0);
    }
    let mut rows = vec![["DRIVER", "OVER", "SECTIONS", "MEANING"].map(str::to_owned).to_vec()];
    rows.extend(DRIVERS.iter().map(|spec| row(spec)));
    output::out(output::table(&rows).trim_end());
    Ok(0)
}

fn described(spec: &DriverSpec) -> Value {
    let DriverSpec { driver: _, word, doc, transport, port, operations, groups: _, presets } = spec;
    json!({
        "driver": word,
        "meaning": doc,
        "transport": transport.as_str(),
        "port": port,
        "operations": operations,
        "keys": spec.keys().collect::<Vec<_>>(),
        "presets": presets,
    })
}

fn row(spec: &DriverSpec) -> Vec<String> {
    vec![
        spec.word.to_owned(),
        spec.transport.as_str().to_owned(),
        sections(spec).join(", "),
        spec.doc.trim_end_matches('.').to_owned(),
    ]
}

/// First parts of its keys, each once.
fn sections(spec: &DriverSpec) -> Vec<&'static str> {
    let mut sections: Vec<&str> = Vec::new();
    for section in spec.keys().filter_map(|key| key.split('.').next()) {
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/drivers.md");

    /// Lines around the part of the page that is made from the table.
    const BEGIN: &str = "<!-- Made from the table of drivers by a test: AIFB_BLESS=1 cargo test -p aifb drivers -->\n";
    const END: &str = "<!-- End of the table of drivers -->\n";

    fn markdown() -> String {
        let code = |words: &[&str]| {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        };
        let mut text =
            "\n| driver | meaning | over | port | operations | keys of its own | presets |\n\
            |---|---|---|---|---|---|---|\n"
                .to_owned();
        for spec in DRIVERS {
            let port = spec.port.map_or_else(String::new, |port| port.to_string());
            let keys: Vec<&str> = spec.keys().collect();
            let presets =
                if spec.presets.is_empty() { "any".to_owned() } else { code(spec.presets) };
            text.push_str(&format!(
                "| `{}` | {} | {} | {port} | {} | {} | {presets} |\n",
                spec.word,
                spec.doc,
                spec.transport.as_str(),
                code(spec.operations),
                code(&keys),
            ));
        }
        text.push('\n');
        text
    }

    #[test]
    fn the_page_of_drivers_has_the_table() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect("the begin of the table");
        let (kept, after) = rest.split_once(END).expect("the end of the table");
        if std::env::var_os("AIFB_BLESS").is_some() {
            let whole = [before, BEGIN, &markdown(), END, after].concat();
            std::fs::write(PAGE, whole).unwrap();
        } else {
            assert!(kept == markdown(), "out of date: AIFB_BLESS=1 cargo test -p aifb drivers");
        }
        // What the table does not say is written by hand, for each.
        let part = |title: &str| {
            let from = after.split_once(title).unwrap_or_else(|| panic!("no section '{title}'")).1;
            from.split("\n## ").next().unwrap()
        };
        for spec in DRIVERS {
            let row = format!("\n| `{}` | ", spec.word);
            assert!(part("\n## Requests, content").contains(&row), "{}: what is sent", spec.word);
            let word = format!("`{}`", spec.word);
            assert!(part("\n## Tested servers").contains(&word), "{}: tested", spec.word);
        }
    }
}
