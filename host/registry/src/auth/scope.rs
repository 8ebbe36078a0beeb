//! What a token is asked for: `repository:<name>:pull,push` (distribution's token scope specification).

use std::collections::{BTreeMap, BTreeSet};

/// The rights that a request needs; equal rights compare equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// To read from `repository`.
    pub(crate) fn pull(repository: &str) -> Self {
        Self::default().and(repository, &["pull"])
    }

    /// To read from and write to `repository`.
    pub(crate) fn push(repository: &str) -> Self {
        Self::default().and(repository, &["pull", "push"])
    }

    /// More rights, as a mount from another repository needs.
    pub(crate) fn and(mut self, repository: &str, actions: &[&str]) -> Self {
        let held = self
            .0
            .entry(format!("repository:{repository}"))
            .or_default();
        held.extend(actions.iter().map(|a| (*a).to_owned()));
        self
    }

    /// Adds what a challenge names.  Of a resource that is asked for already nothing is added: a server has
    /// no say in how much more than needed a token may do.
    pub(crate) fn with_challenged(mut self, challenged: &[String]) -> Self {
        for scope in challenged {
            let (resource, actions) = match scope.rsplit_once(':') {
                Some((resource, actions)) => (resource, actions),
                None => (scope.as_str(), ""),
            };
            let foreign_repository = resource.starts_with("repository:");
            if !foreign_repository && !self.0.contains_key(resource) {
                let actions = actions
                    .split(',')
                    .filter(|a| !a.is_empty())
                    .map(str::to_owned);
                self.0.insert(resource.to_owned(), actions.collect());
            }
        }
        self
    }

    /// One text for each resource.
    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |(resource, actions): (&String, &BTreeSet<String>)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            if actions.is_empty() {
                resource.clone()
            } else {
                format!("{resource}:{}", actions.join(","))
            }
        };
        self.0.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_token_servers_read() {
        let scopes = Scopes::push("a/b").and("c", &["pull"]);
        assert_eq!(
            scopes.texts(),
            ["repository:a/b:pull,push", "repository:c:pull"]
        );
    }

    #[test]
    fn a_challenge_adds_its_own_resources_but_no_rights_on_repositories() {
        let challenged = [
            "repository:a:*".to_owned(),
            "repository:secret:push".into(),
            "aws".into(),
        ];
        assert_eq!(
            Scopes::pull("a").with_challenged(&challenged).texts(),
            ["aws", "repository:a:pull"]
        );
    }
}
