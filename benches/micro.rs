//! What each step of a request costs by itself: `cargo bench --bench micro`.
//!
//! On a shared machine compare figures of one run only. `benches/yardstick` measures the whole server.

#![expect(clippy::unwrap_used, reason = "what is measured is known to work")]

use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

/// Associated data as an object store sends it.
const CONTEXT: &[u8] = &[1; 80];

mod crypto {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use claviger::crypto::{Algorithm, Blob, Key, SecretKey};
    use time::OffsetDateTime;

    use super::*;

    const BOTH: [Algorithm; 2] = [Algorithm::Aes256, Algorithm::ChaCha20];

    /// A stored key, in each of the two formats.
    const STORED: [&str; 2] = ["v0.10.1/v0_10_1-create", "HEAD/head-create"];

    /// A version for each of the three formats of ciphertexts.
    const VERSIONS: [&str; 3] = ["v0.10.1", "v0.19.4", "HEAD"];

    fn testdata(path: &str) -> Vec<u8> {
        std::fs::read(format!("{}/testdata/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn key(algorithm: Algorithm) -> Key {
        let secret = SecretKey::from_slice(&[7; 32]).unwrap();
        Key::import(secret, algorithm, OffsetDateTime::UNIX_EPOCH, "").unwrap()
    }

    #[divan::bench(args = BOTH)]
    fn generate(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
        let key = key(algorithm);
        bencher.bench(|| key.generate_data_key(black_box(CONTEXT)));
    }

    #[divan::bench(args = BOTH)]
    fn encrypt(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
        let key = key(algorithm);
        bencher.bench(|| key.encrypt(black_box(&[9; 32]), black_box(CONTEXT)));
    }

    #[divan::bench(args = BOTH)]
    fn decrypt(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
        let key = key(algorithm);
        let ciphertext = key.encrypt(&[9; 32], CONTEXT).unwrap();
        bencher.bench(|| key.decrypt(black_box(&ciphertext), black_box(CONTEXT)).unwrap());
    }

    #[divan::bench(args = VERSIONS)]
    fn decrypt_what_was_written_by(bencher: Bencher<'_, '_>, version: &str) {
        let cases: serde_json::Value =
            serde_json::from_slice(&testdata(&format!("ciphertexts/{version}.json"))).unwrap();
        let name = cases[0]["key"].as_str().unwrap();
        let key = Key::parse(&testdata(&format!("stored-keys/{version}/{name}")).into()).unwrap();
        let ciphertext = STANDARD.decode(cases[0]["ciphertext"].as_str().unwrap()).unwrap();
        bencher.bench(|| key.decrypt(black_box(&ciphertext), &[]).unwrap());
    }

    #[divan::bench]
    fn hmac(bencher: Bencher<'_, '_>) {
        let key = key(Algorithm::Aes256);
        bencher.bench(|| key.hmac(black_box(CONTEXT)));
    }

    #[divan::bench(args = STORED)]
    fn parse_stored_key(bencher: Bencher<'_, '_>, file: &str) {
        let value = Blob::from(testdata(&format!("stored-keys/{file}")));
        bencher.bench(|| Key::parse(black_box(&value)).unwrap());
    }
}

mod request {
    use std::collections::BTreeMap;

    use claviger::api::wire::{DecryptRequest, GenerateRequest};
    use claviger::api::{self, State};
    use claviger::auth::Policy;
    use claviger::crypto::{Algorithm, Key};
    use claviger::name::PolicyName;
    use claviger::server::path::Path;
    use claviger::server::{IntoReply as _, Json, Router};
    use time::OffsetDateTime;

    use super::*;

    #[divan::bench]
    fn parse_path_and_find_route(bencher: Bencher<'_, '_>) {
        let router = Router::<State>::new(api::routes(), &BTreeMap::new());
        bencher.bench(|| {
            let path = Path::parse(black_box("/v1/key/decrypt/my-app-key")).unwrap();
            router.find(&hyper::Method::PUT, path).map(|(_, _, name_at)| name_at)
        });
    }

    #[divan::bench(args = [1, 20, 1_000])]
    fn check_policy_with_rules(bencher: Bencher<'_, '_>, rules: usize) {
        // The last rule is the one that matches.
        let allow = (1..rules).map(|n| format!("/v1/key/decrypt/app-{n:04}*")).chain(["/v1/key/decrypt/my*".into()]);
        let policy = Policy::new(PolicyName::parse("bench").unwrap(), allow.collect(), Vec::new());
        bencher.bench(|| policy.allows(black_box("/v1/key/decrypt/my-app-key")));
    }

    #[divan::bench(types = [GenerateRequest, DecryptRequest])]
    fn parse<T: Json>(bencher: Bencher<'_, '_>) {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let (ciphertext, context) = (STANDARD.encode([2; 76]), STANDARD.encode(CONTEXT));
        let body = format!("{{\"ciphertext\":\"{ciphertext}\",\"context\":\"{context}\"}}");
        bencher.bench(|| T::parse(black_box(body.as_bytes())).ok().unwrap());
    }

    #[divan::bench]
    fn write_reply(bencher: Bencher<'_, '_>) {
        let key = Key::generate(Algorithm::Aes256, OffsetDateTime::UNIX_EPOCH, "").unwrap();
        bencher.with_inputs(|| key.generate_data_key(CONTEXT).unwrap()).bench_values(|data_key| data_key.into_reply());
    }
}

mod keys {
    use std::sync::Arc;
    use std::time::Duration;

    use claviger::cache::{self, Keys};
    use claviger::crypto::{Algorithm, Key};
    use claviger::keystore::mem;
    use claviger::name::{KeyName, Page, Pattern};
    use time::OffsetDateTime;
    use tokio::runtime::Runtime;

    use super::*;

    fn names(count: usize) -> Vec<KeyName> {
        (0..count).map(|n| KeyName::parse(&format!("key-{n:07}")).unwrap()).collect()
    }

    /// Keys of which all are cached.
    fn cached(runtime: &Runtime, names: &[KeyName]) -> Arc<Keys> {
        let hour = Duration::from_secs(3_600);
        let expiry = cache::Expiry { any: hour, unused: hour, ..cache::Expiry::default() };
        let config = cache::Config { expiry, max_entries: names.len() };
        let keys = Keys::new(config, Arc::new(mem::Store::default()), runtime.handle().clone());
        let key = Key::generate(Algorithm::Aes256, OffsetDateTime::UNIX_EPOCH, "").unwrap();
        runtime.block_on(async {
            for name in names {
                keys.create(name, &key).await.unwrap();
                keys.get(name).await.unwrap();
            }
        });
        keys
    }

    #[divan::bench(args = [1, 1_000, 100_000])]
    fn get_one_of_cached(bencher: Bencher<'_, '_>, count: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let names = names(count);
        let keys = cached(&runtime, &names);
        let mut next = (0..count).cycle().map(|n| &names[n * 7_919 % count]);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        bencher.bench_local(|| {
            // A cached key is there at once.
            let found = std::pin::pin!(keys.get(next.next().unwrap())).poll(&mut context);
            assert!(found.is_ready());
        });
    }

    #[divan::bench(args = [1_000, 1_000_000])]
    fn make_a_page_of(bencher: Bencher<'_, '_>, count: usize) {
        let names = names(count);
        let pattern = Pattern::parse(&Pattern::parse("").unwrap().continue_at(names[count / 2].as_str())).unwrap();
        bencher.bench(|| Page::after(black_box(&pattern), &names));
    }
}
