//! What README and user guide tell people to type, typed on the cluster as an ordinary user: the
//! blocks are taken from the pages themselves, in their order.

use std::time::Duration;

use crate::cluster::{Case, Ran};

const MINUTES: Duration = Duration::from_secs(300);

/// The fenced blocks of a page in `language`, in their order.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if fence == language {
            blocks.push(block.join("\n") + "\n");
        }
    }
    blocks
}

/// The block that holds `words`; the page has to be mended together with this test.
#[track_caller]
fn with<'a>(blocks: &'a [String], words: &str) -> &'a str {
    let mut found = blocks.iter().filter(|block| block.contains(words));
    let block = found.next().unwrap_or_else(|| panic!("no block has '{words}': {blocks:#?}"));
    assert!(found.next().is_none(), "'{words}' is in two blocks");
    block
}

/// Types a block: every line has to succeed.
#[track_caller]
fn typed(case: &Case, block: &str) -> String {
    let ran: Ran = case.sh(&format!("set -e\n{block}"));
    assert_eq!(ran.code, 0, "{block}\n{ran:?}\n{}", case.state_text());
    ran.stdout
}

/// The id in `Submitted batch job 7`.
#[track_caller]
fn submitted(output: &str) -> u32 {
    let line = output.lines().find_map(|line| line.strip_prefix("Submitted batch job "));
    line.unwrap_or_else(|| panic!("{output}")).parse().unwrap()
}

#[test]
fn the_readme_of_a_user() {
    let case = case!("readme");
    let readme = include_str!("../../README.md");
    let (recipes, commands) = (blocks(readme, "yaml"), blocks(readme, "sh"));
    case.write("x.yaml", with(&recipes, "# x.yaml"));
    case.write("job.sh", "#!/bin/bash\ncurl -sf \"$SERVICE_URL/\"\n");
    let output = typed(&case, with(&commands, "aifb run --local x.yaml"));
    assert!(output.contains("http on web") && output.contains("run folder"), "{output}");
    let output = typed(&case, with(&commands, "aifb run x.yaml"));
    assert!(output.contains("http on web") && output.contains("run folder"), "{output}");
    let job = submitted(&output);
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert!(case.read(&format!("slurm-{job}.out")).contains("Directory listing"));
    case.nothing_left(job);
    // Image and model are fetched from elsewhere there; here stand-ins bear their names.
    case.write("llm.yaml", with(&recipes, "# llm.yaml"));
    case.llama("llama-server.sif", "model.gguf");
    let output = typed(&case, "aifb run llm.yaml\n");
    assert!(output.contains("TTFT") && output.contains("run folder"), "{output}");
}

#[test]
fn the_first_recipe_of_the_user_guide() {
    let case = case!("guide");
    let page = include_str!("../../docs/user/first-recipe.md");
    let blocks = blocks(page, "sh");
    let output = typed(&case, with(&blocks, "aifb run --local web.yaml"));
    assert!(output.contains("e2e"), "{output}");
    let output = typed(&case, with(&blocks, "aifb doctor"));
    assert!(output.contains("e2e"), "{output}");

    // The job script with the flag in it; while it runs the commands that look at a run.
    case.write("job.sh", with(&blocks, "#SBATCH --aifb-recipe=web.yaml"));
    let job = submitted(&typed(&case, "sbatch job.sh"));
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let output = case.read(&format!("slurm-{job}.out"));
    assert!(output.contains("Directory listing") && output.contains("e2e"), "{output}");
    case.nothing_left(job);

    let job = submitted(&typed(&case, "sbatch --aifb-recipe=web.yaml --wrap 'sleep 60'"));
    case.until("the run", MINUTES, || {
        let status = case.run(&["aifb", "status", &job.to_string()]).stdout;
        status.contains("healthy").then_some(())
    });
    // Following ends with the run: it goes beside the others.
    let looking = with(&blocks, "aifb watch 4711").replace("4711", &job.to_string());
    let looking = looking.replace(&format!("aifb watch {job} "), &format!("aifb watch {job} & #"));
    let output = typed(&case, &looking);
    assert!(output.contains("web"), "{output}");
    case.wait(job, MINUTES);
    case.nothing_left(job);

    // A script that starts its run itself.
    let up = with(&blocks, "aifb up web.yaml --sh");
    let job = case.sbatch(&[], &format!("set -e\n{up}curl -sf \"$SERVICE_URL/\""));
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert!(case.read("job.out").contains("Directory listing"), "{}", case.state_text());
    case.nothing_left(job);

    case.write("job.sh", "#!/bin/bash\naifb load\n");
    let output = typed(&case, with(&blocks, "--aifb-set=load.get.arrival.rate=200/s"));
    let job = submitted(&output);
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let report = case.run(&["aifb", "report", &job.to_string()]).ok();
    assert!(report.contains("http on web"), "{report}");
    case.nothing_left(job);
}
