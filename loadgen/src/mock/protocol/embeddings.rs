//! OpenAI's embeddings.

use serde::Deserialize;

use super::{
    super::script::{Answer, Whole},
    Request, Settings, Texts, vectors,
};

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    model: Option<String>,
    input: Texts,
    #[serde(default)]
    dimensions: Option<usize>,
}

/// Most numbers in a vector: the largest models in use have 16384.
const DIMENSION_MAX: usize = 65_536;

/// Answers with a vector for each input.
pub(super) fn answer(request: &Request<'_>, settings: &Settings<'_>) -> Option<Answer> {
    if !request.posts(&["/v1/embeddings"]) {
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
    let (count, tokens) = wanted.input.count();
    let dimension = wanted.dimensions.unwrap_or(settings.dimension).clamp(1, DIMENSION_MAX);
    let settings = Settings { dimension, ..*settings };
    let data: Vec<serde_json::Value> = vectors(count, &settings)
        .into_iter()
        .enumerate()
        .map(|(index, vector)| {
            serde_json::json!({"object": "embedding", "index": index, "embedding": vector})
        })
        .collect();
    let body = serde_json::json!({
        "object": "list",
        "data": data,
        "model": settings.model_name(),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    });
    Some(Answer::Served(Whole::json(body.to_string(), 1)))
}
