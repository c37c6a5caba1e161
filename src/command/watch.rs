//! `aifb watch`: one line for each change, until the run ends.

use std::thread;

use serde_json::json;

use crate::{
    cli::WatchArgs,
    error::Result,
    observe::follow::{self, Follower},
    output,
    store::select,
};

pub(super) fn run(args: &WatchArgs) -> Result<i32> {
    let mut follower = Follower::new(select(&args.run)?);
    if !args.json {
        output::out(format!("following {}", follower.folder().path().display()));
    }
    loop {
        let news = follower.look()?;
        for event in &news.events {
            if args.json {
                output::out_json_line(&json!({"type": "event", "event": event}));
            } else {
                output::out(follow::event_line(event, &news.run));
            }
        }
        for load in &news.loads {
            if args.json {
                output::out_json_line(&json!({"type": "load", "load": load}));
            } else {
                output::out(follow::load_line(load, &news.run));
            }
        }
        if news.over {
            if args.json {
                output::out_json_line(&json!({"type": "end", "run": news.run}));
            } else {
                output::out(format!("{} {}", news.run.run_id, news.run.state.as_str()));
            }
            return Ok(news.run.exit_code());
        }
        thread::sleep(follow::EVERY);
    }
}
