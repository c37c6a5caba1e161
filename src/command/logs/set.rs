//! `aifb logs set`: which lines the agents of a run send and write from now on.

use aifb_schema::{logs::LoggingChange, recipe::Logging};
use serde_json::json;

use crate::{
    agent_client::AgentClient,
    cli::LogsSetArgs,
    error::{CommandError, Result},
    output,
    store::select,
};

pub(super) fn run(args: &LogsSetArgs) -> Result<i32> {
    let run = select(&args.run)?;
    let until = if args.forever { Some(None) } else { args.until.map(Some) };
    let change = LoggingChange { level: args.level.map(Into::into), number: None, until };
    let agents = run.agents();
    if agents.is_empty() {
        return Err(CommandError::incomplete(
            "looking for the agents of the run",
            "none of them is running",
        ));
    }
    let token = run.token()?;
    let (mut set, mut failed) = (Vec::<(String, Logging)>::new(), None);
    for agent in agents {
        // One that does not answer does not keep the others from it.
        match AgentClient::at(agent.address, token.clone()).set_logging(change) {
            Ok(logging) => set.push((agent.node, logging)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if args.json {
        let nodes: Vec<_> =
            set.iter().map(|(node, now)| json!({"node": node, "logging": now})).collect();
        output::out_json(&json!({ "nodes": nodes }));
    } else {
        for (node, now) in set {
            let until = now.until.map(|until| format!(" until {until}")).unwrap_or_default();
            output::out(format!("{node}: {}{until}", now.level.as_str()));
        }
    }
    failed.map_or(Ok(0), Err)
}
