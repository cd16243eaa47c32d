use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Case {
    key: String,
    message: Base64,
    hmac: Option<String>,
    status: u16,
}

#[test]
fn hmacs_are_those_of_the_archived_server() {
    let keys = keys();
    let cases: Vec<Case> = read_json("hmac/hmac.json");
    assert_eq!(cases.len(), 112);
    for Case { key, message, hmac, status } in cases {
        let made = keys[&key].hmac(&message.0).map(|tag| tag.to_vec());
        assert_eq!(made, hmac.as_deref().map(hex), "{key}");
        assert_eq!(made.is_some(), status == 200, "{key}");
        assert_eq!(made.is_some(), keys[&key].has_hmac(), "{key}");
    }
}
