//! The keys that the fuzzer `ciphertext` tries, with the names that `testdata` has for them: two of each format.

/// Name and value of each.
pub const KEYS: [(&str, &[u8]); 4] = [
    ("v0_10_1-create", include_bytes!("../../testdata/stored-keys/v0.10.1/v0_10_1-create")),
    ("v0_22_3-create", include_bytes!("../../testdata/stored-keys/v0.22.3/v0_22_3-create")),
    ("head-create", include_bytes!("../../testdata/stored-keys/HEAD/head-create")),
    ("head-import", include_bytes!("../../testdata/stored-keys/HEAD/head-import")),
];
