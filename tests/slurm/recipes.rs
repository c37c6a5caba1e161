//! Recipes of the tests.

/// One `tests/support/service.py` with these arguments, and no load.
pub fn service(arguments: &str) -> String {
    format!(
        "aifb: 1
name: case
services:
  - name: web
    kind: container
    program: /usr/bin/python3
    args: [/aifb/tests/support/service.py, --host, '{{host}}', --port, '{{port}}'{arguments}]
    health: {{http: /health}}
"
    )
}

/// [`service`] and a plain HTTP load against it.
pub fn service_and_load(arguments: &str, measure: &str) -> String {
    format!(
        "{}load:
  - name: hits
    driver: http
    http: {{path: /}}
    arrival: {{process: constant, rate: 50/s}}
    phases: {{measure: {measure}, drain: 2s}}
",
        service(arguments)
    )
}
