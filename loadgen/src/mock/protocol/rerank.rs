//! Rerank, as Jina and Cohere define it and vLLM serves it.

use serde::Deserialize;

use super::{
    super::{
        fault::Fault,
        script::{Answer, Whole},
    },
    Request, Settings, words,
};

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    model: Option<String>,
    query: String,
    documents: Vec<String>,
    #[serde(default)]
    top_n: Option<usize>,
}

/// Answers with a score for each document, best first.
pub(super) fn answer(request: &Request<'_>, settings: &Settings<'_>) -> Option<Answer> {
    if !request.posts(&["/rerank", "/v1/rerank", "/v2/rerank"]) {
        return None;
    }
    let wanted: Wanted = match request.json() {
        Ok(wanted) => wanted,
        Err(wrong) => return Some(Answer::Plain(wrong)),
    };
    if settings.lacks(wanted.model.as_deref()) {
        let text = r#"{"error":{"message":"no such model","code":404}}"#;
        return Some(Answer::Plain(Whole::status("404 Not Found", text, 0)));
    }
    let all = wanted.documents.len();
    let mut count = wanted.top_n.filter(|top| *top > 0).unwrap_or(all).min(all);
    count = count.saturating_sub(usize::from(settings.faults.has(Fault::ShortList)));
    if settings.faults.has(Fault::Empty) {
        count = 0;
    }
    let results: Vec<serde_json::Value> = (0..count)
        .map(|rank| {
            // The last document is the best, so the order is not that of the request.
            let twice = rank == 1 && settings.faults.has(Fault::OddList);
            let index = all - 1 - if twice { 0 } else { rank };
            let score = 1.0 / (1.0 + f64::from(u32::try_from(rank).unwrap_or(0)));
            let text = wanted.documents.get(index);
            serde_json::json!({"index": index, "document": {"text": text}, "relevance_score": score})
        })
        .collect();
    let documents: u64 = wanted.documents.iter().map(|text| words(text)).sum();
    let tokens = documents + words(&wanted.query);
    let body = serde_json::json!({
        "id": "rerank-1",
        "model": settings.model_name(),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results,
    });
    Some(Answer::Served(Whole::json(body.to_string(), 1)))
}
