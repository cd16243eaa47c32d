//! No output, report or log holds key material.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::support::{Stores, hex, key, secret, stored_key, stored_secrets};

/// Every form in which the bytes of a key could be shown.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = hex(secret);
    vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        // Without the last characters, which depend on padding.
        STANDARD_NO_PAD.encode(secret).into_bytes()[..42].to_vec(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes()[..42].to_vec(),
        format!("{secret:?}").trim_matches(['[', ']']).as_bytes().to_vec(),
    ]
}

fn leaks(text: &[u8], secrets: &[Vec<u8>]) -> Vec<usize> {
    let found = |secret: &Vec<u8>| {
        forms(secret).iter().any(|form| text.windows(form.len()).any(|window| window == form.as_slice()))
    };
    secrets.iter().enumerate().filter(|(_, secret)| found(secret)).map(|(index, _)| index).collect()
}

#[test]
fn no_output_holds_key_material() {
    let stores = Stores::with_keys(6);
    let (value, _) = stored_key("HEAD");
    stores.write("src/head", &value);
    let mut secrets: Vec<_> = [0, 1, 2, 3, 4, 5, 77].map(|n| secret(n).to_vec()).into();
    secrets.extend(stored_secrets("HEAD"));

    // The search finds what it must find.
    for (index, secret) in secrets.iter().enumerate() {
        for form in forms(secret) {
            let control = [b"control ", form.as_slice(), b" file"].concat();
            assert!(leaks(&control, &secrets).contains(&index));
        }
    }

    stores.write("dst/key-00001", &key(77));
    stores.write("dst/key-00002", &key(2));
    let mut said = Vec::new();
    let mut listen = |args: &[&str]| {
        for more in [&["--report", "report.json"][..], &["--json"]] {
            let run = stores.migrate(&[args, more].concat());
            said.extend([run.stdout, run.stderr].concat().into_bytes());
            said.extend(std::fs::read(stores.path("report.json")).unwrap_or_default());
            let run = stores.verify(&[&["key*"], more].concat());
            said.extend([run.stdout, run.stderr].concat().into_bytes());
            said.extend(std::fs::read(stores.path("report.json")).unwrap_or_default());
        }
    };
    listen(&[]);
    listen(&["--dry-run", "--force"]);
    listen(&["--merge"]);
    // Half keys: what cannot be parsed may hold one all the same.
    stores.write("src/half", &key(3)[..key(3).len() - 4]);
    stores.write("src/typo", &key(4).replace("AES256", "AES257"));
    stores.write("src/line", &format!("{}\n{}", key(4), key(5)));
    stores.write("src/bad64", &format!("{}!", value.trim_end()));
    listen(&[]);
    listen(&["--exclude", "half", "--exclude", "typo", "--exclude", "line", "--exclude", "bad64", "--force"]);
    assert!(said.len() > 10_000, "there was something to search");
    assert_eq!(leaks(&said, &secrets), [0; 0], "{}", String::from_utf8_lossy(&said));
}
