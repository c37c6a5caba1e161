use std::{collections::BTreeSet, io::Write};

use super::*;

fn workload(dataset: &str, seed: u64) -> Workload {
    let dataset: Dataset = serde_json::from_str(dataset).unwrap();
    Workload::new(&dataset, seed, None).unwrap()
}

fn ask(id: u64) -> Ask {
    Ask::new(Phase::Measure, id)
}

fn turn(item: u64, turn: u32) -> Ask {
    Ask { item, turn, ..ask(item * 10 + u64::from(turn)) }
}

fn words_of(text: &str) -> Vec<&str> {
    text.trim_matches('"').split(' ').collect()
}

#[test]
fn made_up_prompts_differ_from_their_start_and_repeat_with_the_seed() {
    let dataset = r#"{"kind": "synthetic", "input_tokens": 64, "output_tokens": 10}"#;
    let made = workload(dataset, 42);
    let begins: BTreeSet<String> =
        (0..5_000).map(|id| words_of(&made.item(ask(id)).prompt())[..8].join(" ")).collect();
    assert_eq!(begins.len(), 5_000);
    let item = made.item(ask(7));
    assert_eq!((words_of(&item.prompt()).len(), item.input_tokens), (64, 64));
    assert_eq!((item.output_tokens, item.exact, item.repeated_tokens), (10, true, 0));
    assert_eq!(item, workload(dataset, 42).item(ask(7)));
    assert_ne!(item, workload(dataset, 43).item(ask(7)));
    assert_ne!(item.prompt(), made.item(Ask::new(Phase::Warmup, 7)).prompt());
    assert!(item.messages().starts_with(r#"[{"role":"user","content":""#));
    serde_json::from_str::<serde_json::Value>(&item.messages()).unwrap();
}

#[test]
fn lengths_are_drawn_for_each_item() {
    let made = workload(
        r#"{"kind": "synthetic", "input_tokens": {"uniform": [5, 50]}, "output_tokens": {"uniform": [1, 9]}}"#,
        1,
    );
    let items: Vec<Item> = (0..500).map(|id| made.item(ask(id))).collect();
    for item in &items {
        assert_eq!(words_of(&item.prompt()).len() as u64, item.input_tokens);
    }
    let inputs: BTreeSet<u64> = items.iter().map(|item| item.input_tokens).collect();
    let outputs: BTreeSet<u32> = items.iter().map(|item| item.output_tokens).collect();
    assert!(inputs.len() == 46 && outputs.len() == 9, "{inputs:?} {outputs:?}");
}

#[test]
fn prefixes_are_shared_within_their_group() {
    let made = workload(
        r#"{"kind": "synthetic", "input_tokens": 10, "prefix": {"tokens": 30, "groups": 4}}"#,
        1,
    );
    let begin = |id| words_of(&made.item(ask(id)).prompt())[..30].join(" ");
    assert_eq!((begin(0), begin(1)), (begin(4), begin(5)));
    assert_eq!((0..4).map(begin).collect::<BTreeSet<_>>().len(), 4);
    assert_ne!(made.item(ask(0)), made.item(ask(4)), "the rest is their own");
    let repeated = |id| made.item(ask(id)).repeated_tokens;
    assert_eq!((repeated(3), repeated(4), made.item(ask(4)).input_tokens), (0, 30, 40));
}

#[test]
fn the_planned_reuse_is_counted() {
    let made = workload(
        r#"{"kind": "synthetic", "input_tokens": 10, "prefix": {"tokens": 30, "groups": 4}}"#,
        1,
    );
    (0..8).for_each(|id| drop(made.item(ask(id))));
    drop(made.item(Ask::new(Phase::Warmup, 0)));
    let record = made.record();
    assert_eq!((record.input_tokens, record.repeated_tokens), (8 * 40, 4 * 30));
}

#[test]
fn a_turn_carries_those_before_it() {
    let made = workload(
        r#"{"kind": "synthetic", "input_tokens": 10, "output_tokens": 6, "turns": {"count": {"uniform": [2, 4]}, "think": "1s"}}"#,
        1,
    );
    assert_eq!(made.talk_pause(), Some(Pause::Fixed(1_000_000_000)));
    let counts: BTreeSet<u32> = (0..100).map(|item| made.turns(item)).collect();
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [2, 3, 4]);
    let (first, second, third) =
        (made.item(turn(5, 0)), made.item(turn(5, 1)), made.item(turn(5, 2)));
    let roles: Vec<&str> = third.messages.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "user"]);
    assert_eq!(third.messages[..3], second.messages[..]);
    assert_eq!(second.messages[..1], first.messages[..]);
    assert_eq!((first.input_tokens, first.repeated_tokens), (10, 0));
    assert_eq!((second.input_tokens, second.repeated_tokens), (26, 16));
    assert_eq!((third.input_tokens, third.repeated_tokens), (42, 32));
    assert_eq!(words_of(&third.prompt()).len(), 42);
    assert_ne!(made.item(turn(6, 0)), first);
}

#[test]
fn a_fixed_prompt_is_the_same_each_time() {
    let made = workload(r#"{"kind": "prompt", "prompt": "Tell \"me\"", "output_tokens": 5}"#, 1);
    let (first, second) = (made.item(ask(0)), made.item(ask(1)));
    assert_eq!(first.prompt(), r#""Tell \"me\"""#);
    assert_eq!((first.prompt(), first.exact), (second.prompt(), false));
    assert_eq!((first.repeated_tokens, second.repeated_tokens), (0, 2));
}

#[test]
fn token_numbers_are_within_the_vocabulary() {
    let made = workload(r#"{"kind": "ids", "input_tokens": 1000, "vocabulary": 50}"#, 1);
    let ids: Vec<u32> = serde_json::from_str(&made.item(ask(3)).prompt()).unwrap();
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (1000, 50));
    assert!(ids.iter().all(|id| *id < 50));
    assert_ne!(made.item(ask(3)).prompt(), made.item(ask(4)).prompt());
}

fn from_file(text: &str, more: &str) -> Workload {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().display();
    workload(&format!(r#"{{"kind": "jsonl", "file": "{path}", "shuffle": false{more}}}"#), 1)
}

#[test]
fn a_files_entries_are_used_again_and_that_is_counted() {
    let text = "{\"prompt\": \"one\", \"output_tokens\": 7}\n{\"prompt\": \"two\"}\n{\"prompt\": \"three\"}\n";
    let made = from_file(text, "");
    let prompts: Vec<String> = (0..4).map(|id| made.item(ask(id)).prompt()).collect();
    assert_eq!(prompts, [r#""one""#, r#""two""#, r#""three""#, r#""one""#]);
    let record = made.record();
    assert_eq!((record.entries, record.left_out, record.reused), (Some(3), Some(0), 1));
    assert_eq!((record.input_tokens, record.repeated_tokens), (1 + 1 + 2 + 1, 1));
    assert_eq!(made.item(Ask::new(Phase::Warmup, 0)).prompt(), r#""three""#);
    assert_eq!((made.item(ask(0)).output_tokens, made.item(ask(1)).output_tokens), (7, 128));
    let asked = from_file(text, r#", "output_tokens": 9"#);
    assert_eq!(asked.item(ask(0)).output_tokens, 9);
}

#[test]
fn with_a_tokenizer_prompts_have_exactly_as_many_tokens() {
    let own: Vec<String> = (b'a'..=b'z')
        .flat_map(|a| (b'a'..=b'd').map(move |b| String::from_utf8(vec![a, b]).unwrap()))
        .collect();
    let file = tokens::tests::of_words(&own);
    let path = file.path().to_str().unwrap();
    let made = workload(
        &format!(
            r#"{{"kind": "synthetic", "tokenizer": "{path}", "input_tokens": {{"uniform": [1, 3000]}}}}"#
        ),
        1,
    );
    let tokens = Tokens::read(path).unwrap();
    for id in 0..50 {
        let item = made.item(ask(id));
        assert_eq!(tokens.count(&item.text()).unwrap() as u64, item.input_tokens);
    }
    assert_eq!(made.record().files, [(path.to_owned(), tokens.sha256)]);
}

#[test]
fn the_hash_is_that_of_what_is_asked() {
    let dataset: Dataset = serde_json::from_str(r#"{"kind": "synthetic"}"#).unwrap();
    let hash =
        |dataset: &Dataset, seed| Workload::new(dataset, seed, None).unwrap().hash(dataset, seed);
    assert_eq!(hash(&dataset, 1), hash(&dataset, 1));
    assert_ne!(hash(&dataset, 1), hash(&dataset, 2));
    let other: Dataset =
        serde_json::from_str(r#"{"kind": "synthetic", "input_tokens": 5}"#).unwrap();
    assert_ne!(hash(&dataset, 1), hash(&other, 1));
}
