//! The bytes of a layer are a format: a change here changes the digest of every image that is built again.
//! If one of these digests has to change, say so in the release notes.

mod support;

use stepwell_image::LayerOptions;
use stepwell_model::request::Compression::{Gzip, Uncompressed, Zstd};
use support::{file, samples, text, write};

fn layer() -> Vec<support::Item> {
    let mut items = samples();
    items.push(file("dir/text", &text(1, 5 << 20)));
    items.push(file("dir/zeros", &vec![0; 3 << 20]));
    items
}

/// Compression, level and digest of [`layer`]; the first line is the diff id.
const PINNED: &str = "\
Uncompressed None sha256:7373c55812ced37d71a48c2c1a3b6a00a15f289a0dc58610225d2e4077d6779d
Gzip None sha256:1d9bae933328e9448d0bdf7a7747b88c9e8cf802c6ed47f9c4b90ea6edfe63c5
Gzip Some(1) sha256:62885ace6bb2d1228cb4add320a50a409eefb591659821ba3083134afd4c02f9
Gzip Some(9) sha256:2d5e7c631cd451ccce4e48ef91034bf46fc6f5755e64852d20ddd11d1970d6c4
Zstd None sha256:da4c795a2a9a05231dd442ba4a2adc1abea9c38dca4d396f54be3ed41c61f004
Zstd Some(9) sha256:833fe2a113d030c5d71b65d8040b4bb4a84d78e808ab9fdeec4aff00999eed95
";

#[test]
fn a_layer_has_the_same_digest_for_ever() {
    for threads in [1, 4] {
        let mut found = String::new();
        for (compression, level) in [
            (Uncompressed, None),
            (Gzip, None),
            (Gzip, Some(1)),
            (Gzip, Some(9)),
            (Zstd, None),
            (Zstd, Some(9)),
        ] {
            let options = LayerOptions {
                compression,
                level,
                threads,
                clamp_mtime: None,
            };
            let digest = write(&layer(), options).digest;
            found.push_str(&format!("{compression:?} {level:?} {digest}\n"));
        }
        assert_eq!(found, PINNED, "{threads} threads");
    }
}
