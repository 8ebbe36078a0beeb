//! `stepwell du` and `stepwell prune`.

use std::process::ExitCode;

use stepwell_store::{Ids, PruneOptions, Store, StoreOptions};
use stepwell_sys::namespace::Entered;

use crate::args::{PruneArgs, StoreArgs};
use crate::progress::bytes;
use crate::{environment, exit, report};

/// Shows what the store holds.
pub fn du(args: &StoreArgs) -> ExitCode {
    with_store(args, |store| {
        let usage = store.usage()?;
        println!(
            "{:<8} {:<12} {:>10}  {:<19}  WHAT",
            "KIND", "ID", "SIZE", "LAST USED"
        );
        for item in &usage.items {
            let last = if item.in_use {
                "in use".to_owned()
            } else {
                when(item.last_used)
            };
            println!(
                "{:<8} {:<12} {:>10}  {last:<19}  {}",
                item.kind.to_string(),
                shorten(&item.id),
                bytes(item.size),
                item.summary
            );
        }
        println!("total {}", bytes(usage.items.iter().map(|i| i.size).sum()));
        Ok(())
    })
}

/// Removes what is not used.
pub fn prune(args: &PruneArgs) -> ExitCode {
    with_store(&args.store, |store| {
        let options = PruneOptions {
            all: args.all,
            keep_bytes: args.keep_storage,
            older_than: if args.all {
                None
            } else {
                Some(args.older_than)
            },
        };
        let pruned = store.prune(&options)?;
        println!("removed {} items, {}", pruned.items, bytes(pruned.bytes));
        if pruned.others_at_work {
            println!("other builds are at work: what they may need was left alone");
        }
        Ok(())
    })
}

fn with_store(
    args: &StoreArgs,
    work: impl FnOnce(&Store) -> Result<(), stepwell_store::StoreError>,
) -> ExitCode {
    // Trees may hold files that only a user 0 with all of its rights may remove.
    let entered = environment::enter_user_namespace();
    let root = environment::store_root(args.root.as_ref(), entered == Entered::AlreadyRoot);
    match Store::open(&root, StoreOptions::new(Ids::Emulated)).and_then(|store| work(&store)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error.to_string(), &[], None);
            ExitCode::from(exit::FAILED)
        }
    }
}

fn shorten(id: &str) -> String {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.chars().take(12).collect()
}

fn when(secs: u64) -> String {
    jiff::Timestamp::from_second(i64::try_from(secs).unwrap_or(0))
        .map(|t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default()
}
