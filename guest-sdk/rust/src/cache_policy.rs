//! What a cache policy sees and answers: a pleasant face on the bindings of `stepwell:cache-policy`.

#[doc(hidden)]
pub mod bindings {
    //! Generated from `guest-sdk/wit/cache-policy`.
    #![allow(
        missing_docs,
        unsafe_code,
        clippy::all,
        rust_2018_idioms,
        reason = "generated"
    )]

    wit_bindgen::generate!({
        path: "../wit/cache-policy",
        world: "cache-policy",
        pub_export_macro: true,
    });
}

use bindings::exports::stepwell::cache_policy::policy;
pub use policy::{About, Attribute, Budget, Decision, Kept, Operation, Step};

/// A cache policy; [`export_cache_policy!`](crate::export_cache_policy) makes a component of it.
pub trait CachePolicy {
    /// Says what this policy is.
    fn about() -> About;

    /// Decides on all steps of a build: one decision per step, in the same order.
    fn plan(settings: Vec<Attribute>, steps: Vec<Step>) -> Vec<Decision>;

    /// Says which results are thrown away, by index, so that the rest keeps the budget.
    fn retain(budget: Budget, results: Vec<Kept>) -> Vec<u32>;
}

impl<T: CachePolicy> policy::Guest for T {
    fn describe() -> About {
        T::about()
    }

    fn plan(settings: Vec<Attribute>, steps: Vec<Step>) -> Vec<Decision> {
        T::plan(settings, steps)
    }

    fn retain(budget: Budget, results: Vec<Kept>) -> Vec<u32> {
        T::retain(budget, results)
    }
}

/// Exports a [`CachePolicy`](crate::cache_policy::CachePolicy) from the component.
#[macro_export]
macro_rules! export_cache_policy {
    ($policy:ident) => {
        $crate::cache_policy::bindings::export!($policy with_types_in $crate::cache_policy::bindings);
    };
}
