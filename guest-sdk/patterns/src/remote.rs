//! Addresses of files and repositories elsewhere, as `ADD` and a build's context are given them.
//!
//! Pure text: the Dockerfile frontend and the command line read the same addresses in the same way (BuildKit:
//! `util/gitutil`, `frontend/dockerfile/dfgitutil`).  Fetching is the host's business.

/// What an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A file behind http or https.
    File(String),
    /// A repository.
    Git(GitSource),
}

/// A repository, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitSource {
    /// The repository itself, without query and fragment.
    pub url: String,
    /// A branch, a tag, a whole ref, or the id of a commit; empty means the default branch.
    pub reference: String,
    /// Directory of it that is wanted; empty means all.
    pub subdir: String,
    /// The commit that it has to be, or how its id begins; empty means any.
    pub checksum: String,
    /// Whether `.git` is kept, where that is said.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are taken too, where that is said.
    pub submodules: Option<bool>,
    /// Whether files get the time of the commit in place of that of the checkout.
    pub commit_times: bool,
}

/// Shortest beginning of a commit's id that says which one is meant.
const SHORTEST_ID: usize = 7;

/// Reads an address; none where the text is a path.  The error says what is wrong with an address, for people.
pub fn parse(text: &str) -> Option<Result<Remote, String>> {
    if let Some((scheme, rest)) = scheme(text) {
        let path = rest.split(['?', '#']).next().unwrap_or("");
        return match scheme.as_str() {
            "git" | "ssh" => Some(git(text)),
            "http" | "https" if path.ends_with(".git") && path.contains('/') => Some(git(text)),
            "http" | "https" if path.split('/').next().is_none_or(str::is_empty) => {
                Some(Err(format!("`{}` names no host", redact(text))))
            }
            "http" | "https" => Some(Ok(Remote::File(text.to_owned()))),
            _ => None,
        };
    }
    is_scp(text).then(|| git(text))
}

/// Says whether `text` is the id of a commit, or the beginning of one that is long enough.
pub fn is_commit(text: &str) -> bool {
    (SHORTEST_ID..=64).contains(&text.len()) && is_hex(text)
}

/// Says whether `text` is the whole id of a commit.
pub fn is_whole_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Name of the file behind an http address: the last element of its path, decoded.
pub fn file_name(url: &str) -> String {
    let rest = scheme(url).map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or("");
    let path = decode(rest.split_once('/').map_or("", |(_, path)| path));
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    match name {
        "" | "." | ".." => "__unnamed__".to_owned(),
        name => name
            .chars()
            .map(|c| if c.is_control() { '_' } else { c })
            .collect(),
    }
}

/// Returns an address without what may be confidential: user and password, and the values of its query but for those that
/// say what of a repository is meant.
pub fn redact(text: &str) -> String {
    let Some((scheme, rest)) = scheme(text) else {
        return text.to_owned();
    };
    let (rest, fragment) = cut(rest, '#');
    let (place, query) = cut(rest, '?');
    let (authority, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
    let host = authority.rsplit('@').next().unwrap_or("");
    let mut out = format!("{scheme}://{host}{path}");
    for (n, pair) in query.into_iter().flat_map(|q| q.split('&')).enumerate() {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let shown = if KEYS.contains(&key) || value.is_empty() {
            value
        } else {
            "…"
        };
        out.push(if n == 0 { '?' } else { '&' });
        out.push_str(&format!("{key}={shown}"));
    }
    if let Some(fragment) = fragment {
        out.push_str(&format!("#{fragment}"));
    }
    out
}

/// User and password of an address, decoded, where it has any.
pub fn userinfo(text: &str) -> Option<(String, String)> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, password) = cut(authority.rsplit_once('@')?.0, ':');
    Some((decode(user), decode(password.unwrap_or(""))))
}

/// Returns an address without its user and password.
pub fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or("");
    format!("{scheme}://{host}{path}")
}

/// Keys of a repository's query.
const KEYS: &[&str] = &[
    "ref",
    "tag",
    "branch",
    "subdir",
    "checksum",
    "commit",
    "keep-git-dir",
    "submodules",
    "fetch-by-commit",
    "mtime",
];

/// Splits `scheme://rest`; the scheme in lower case.
fn scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_one = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    is_one.then(|| (scheme.to_ascii_lowercase(), rest))
}

/// Says whether `text` is `user@host:path`.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let Some((host, _)) = rest.split_once(':') else {
        return false;
    };
    let word = |text: &str, more: char| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == more)
    };
    word(user, '_') && word(host, '.') && !text.starts_with('-')
}

/// Host of a repository's address, with its port.
pub fn host(url: &str) -> Option<&str> {
    match scheme(url) {
        Some((_, rest)) => {
            let authority = rest.split(['/', '?', '#']).next()?;
            authority.rsplit('@').next()
        }
        None => url.split_once('@')?.1.split(':').next(),
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn git(text: &str) -> Result<Remote, String> {
    let (rest, fragment) = cut(text, '#');
    let (url, query) = cut(rest, '?');
    let mut source = GitSource {
        url: url.to_owned(),
        ..GitSource::default()
    };
    let bad = |why: String| format!("`{}`: {why}", redact(text));
    if url.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err(bad("there is a space or a control character in it".into()));
    }
    // A program that is handed it must not take it for an option.
    if host(url).is_none_or(|h| h.is_empty() || h.starts_with('-')) {
        return Err(bad("it names no host".into()));
    }
    if is_ssh(url) {
        ssh(url).map_err(|why| bad(why.into()))?;
    }
    if let Some(fragment) = fragment {
        let fragment = decode(fragment);
        let (reference, subdir) = cut(&fragment, ':');
        source.reference = reference.to_owned();
        source.subdir = subdir.unwrap_or("").to_owned();
    }
    if let Some(query) = query {
        Query::default().read(query, &mut source).map_err(bad)?;
    }
    if source.reference.starts_with('-') {
        return Err(bad(format!("`{}` is not a ref", source.reference)));
    }
    Ok(Remote::Git(source))
}

/// What a query says of the ref, until all of it is read.
#[derive(Default)]
struct Query {
    tag: Option<String>,
    branch: Option<String>,
    by_commit: bool,
    seen: Vec<String>,
}

impl Query {
    fn read(mut self, query: &str, source: &mut GitSource) -> Result<(), String> {
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = cut(pair, '=');
            let value = value.map(decode).filter(|v| !v.is_empty());
            if self.seen.iter().any(|k| k == key) {
                return Err(format!("`{key}` is given twice"));
            }
            self.seen.push(key.to_owned());
            self.one(key, value, source)?;
        }
        self.finish(source)
    }

    fn one(
        &mut self,
        key: &str,
        value: Option<String>,
        source: &mut GitSource,
    ) -> Result<(), String> {
        if !KEYS.contains(&key) {
            return Err(format!(
                "`{key}` is not a key of a repository; there are {}",
                KEYS.join(", ")
            ));
        }
        let flag = |value: Option<String>| match value.as_deref() {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(format!("`{key}` is true or false, not `{other}`")),
        };
        match key {
            "keep-git-dir" => source.keep_git_dir = Some(flag(value)?),
            "submodules" => source.submodules = Some(flag(value)?),
            "fetch-by-commit" => self.by_commit = flag(value)?,
            _ => {
                let value = value.ok_or_else(|| format!("`{key}` has no value"))?;
                match key {
                    "ref" => agree("ref", &mut source.reference, value)?,
                    "subdir" => agree("subdir", &mut source.subdir, value)?,
                    "tag" => self.tag = Some(prefixed("refs/tags/", value)),
                    "branch" => self.branch = Some(prefixed("refs/heads/", value)),
                    "mtime" => match value.as_str() {
                        "checkout" => {}
                        "commit" => source.commit_times = true,
                        other => {
                            return Err(format!("`mtime` is checkout or commit, not `{other}`"));
                        }
                    },
                    _ => agree("commit", &mut source.checksum, value)?,
                }
            }
        }
        Ok(())
    }

    fn finish(self, source: &mut GitSource) -> Result<(), String> {
        if self.tag.is_some() && self.branch.is_some() {
            return Err("it names a branch and a tag; give one of the two".into());
        }
        for reference in [self.tag, self.branch].into_iter().flatten() {
            agree("ref", &mut source.reference, reference)?;
        }
        if !source.checksum.is_empty() && !is_commit(&source.checksum) {
            return Err(format!("`{}` is not the id of a commit", source.checksum));
        }
        if self.by_commit && !is_whole_commit(&source.checksum) {
            return Err("`fetch-by-commit` needs the whole id of the commit as `commit`".into());
        }
        if self.by_commit || source.reference.is_empty() && !source.checksum.is_empty() {
            source.reference.clone_from(&source.checksum);
        }
        Ok(())
    }
}

/// Says whether a repository's address is spoken to over ssh.
pub fn is_ssh(url: &str) -> bool {
    scheme(url).map_or_else(|| is_scp(url), |(scheme, _)| scheme == "ssh")
}

/// Says what is wrong with an address for ssh: what of it becomes an argument of a program is a name, a host and a number.
fn ssh(url: &str) -> Result<(), &'static str> {
    let Some((_, rest)) = scheme(url) else {
        // The rest of `user@host:path` is looked at where it is told from a path.
        let path = url.split_once(':').map_or("", |(_, path)| path);
        return match path {
            "" => Err("it names no path"),
            path if path.starts_with('-') => Err("its path begins with a `-`"),
            _ => Ok(()),
        };
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let Some((user, host)) = authority.rsplit_once('@') else {
        // Within a namespace everybody's name is root's.
        return Err("it names no user; write `ssh://USER@HOST/…`, most often `git@`");
    };
    let word = |text: &str, more: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if user.contains(':') {
        return Err("ssh takes no password; give an agent with the key (`--ssh default`)");
    }
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or(("", "")),
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let is_number =
        |p: &str| matches!(p.strip_prefix(':'), Some("")) || p[1..].parse::<u16>().is_ok();
    if !word(user, "._-+") {
        return Err("its user is no name");
    }
    if !word(name, if host.starts_with('[') { ":." } else { "._-" }) {
        return Err("its host is no name");
    }
    if !port.is_empty() && (!port.starts_with(':') || !is_number(port)) {
        return Err("its port is no number");
    }
    match path {
        "" | "/" => Err("it names no path"),
        _ => Ok(()),
    }
}

fn prefixed(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) {
        name
    } else {
        format!("{prefix}{name}")
    }
}

/// Sets what was not set, or was set to the same.
fn agree(what: &str, place: &mut String, value: String) -> Result<(), String> {
    if !place.is_empty() && *place != value {
        return Err(format!(
            "it names two {what}s: `{place}` and `{value}`; give one of the two"
        ));
    }
    *place = value;
    Ok(())
}

/// Decodes `%XX`; what is no such thing stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = digits
            .and_then(|d| std::str::from_utf8(d).ok())
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|d| u8::from_str_radix(d, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            None => "path".into(),
            Some(Err(why)) => format!("error {why}"),
            Some(Ok(Remote::File(url))) => format!("file {url}"),
            Some(Ok(Remote::Git(g))) => format!(
                "git {} {}:{} {} {:?} {:?} {}",
                g.url,
                g.reference,
                g.subdir,
                g.checksum,
                g.keep_git_dir,
                g.submodules,
                g.commit_times
            ),
        }
    }

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn addresses_are_told_from_paths() {
        for (text, want) in [
            ("a/b", "path"),
            ("./git@host:x", "path"),
            ("ftp://h/x", "path"),
            ("c:/x", "path"),
            ("https://h/x.tar.gz?a=b#c", "file https://h/x.tar.gz?a=b#c"),
            ("HTTP://h/x", "file HTTP://h/x"),
            ("https:///x", "error `https:///x` names no host"),
            ("https://h/x.git", "git https://h/x.git :  None None false"),
            (
                "https://h/x.git#v1:a/b",
                "git https://h/x.git v1:a/b  None None false",
            ),
            (
                "https://h/x.git#:a",
                "git https://h/x.git :a  None None false",
            ),
            (
                "git@h:o/x.git#main",
                "git git@h:o/x.git main:  None None false",
            ),
            ("git://h/x#a%2Fb", "git git://h/x a/b:  None None false"),
            (
                "ssh://git@h:22/x",
                "git ssh://git@h:22/x :  None None false",
            ),
            // A repository has to end in `.git` behind http.
            ("https://h/x#main", "file https://h/x#main"),
            ("https://h.git", "file https://h.git"),
            ("git://", "error `git://`: it names no host"),
            ("ssh://-oX=y/x", "error `ssh://-oX=y/x`: it names no host"),
            ("git@-h:x", "error `git@-h:x`: it names no host"),
            ("-u@h:x", "path"),
            ("git@h:", "error `git@h:`: it names no path"),
            ("git@h:-x", "error `git@h:-x`: its path begins with a `-`"),
            (
                "ssh://git@[::1]:22/x",
                "git ssh://git@[::1]:22/x :  None None false",
            ),
            (
                "ssh://-oProxyCommand=x@h/x",
                "error `ssh://h/x`: its user is no name",
            ),
            (
                "ssh://g@h%20-oX/x",
                "error `ssh://h%20-oX/x`: its host is no name",
            ),
            (
                "ssh://g@h:x/x",
                "error `ssh://h:x/x`: its port is no number",
            ),
            ("ssh://g@h", "error `ssh://h`: it names no path"),
            (
                "ssh://g:hush@h/x",
                "error `ssh://h/x`: ssh takes no password; give an agent with the key (`--ssh default`)",
            ),
            (
                "ssh://h/x",
                "error `ssh://h/x`: it names no user; write `ssh://USER@HOST/…`, most often `git@`",
            ),
            (
                "https://h/x.git#--upload-pack=x",
                "error `https://h/x.git#--upload-pack=x`: `--upload-pack=x` is not a ref",
            ),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn queries_say_what_of_a_repository_is_meant() {
        for (query, want) in [
            ("ref=v1&subdir=a", "v1:a  None None false"),
            ("tag=v1", "refs/tags/v1:  None None false"),
            ("tag=refs/tags/v1", "refs/tags/v1:  None None false"),
            (
                "branch=b&keep-git-dir&submodules=0",
                "refs/heads/b:  Some(true) Some(false) false",
            ),
            ("ref=v1&commit=0123456", "v1: 0123456 None None false"),
            ("checksum=0123456", "0123456: 0123456 None None false"),
            ("mtime=commit", ":  None None true"),
        ] {
            assert_eq!(
                shown(&format!("https://h/x.git?{query}")),
                format!("git https://h/x.git {want}"),
                "{query}"
            );
        }
        assert_eq!(
            shown(&format!(
                "https://h/x.git?ref=v1&fetch-by-commit=1&commit={COMMIT}"
            )),
            format!("git https://h/x.git {COMMIT}: {COMMIT} None None false")
        );
        for (query, why) in [
            ("ref=", "`ref` has no value"),
            ("ref=a&ref=b", "`ref` is given twice"),
            ("rev=a", "`rev` is not a key of a repository"),
            ("tag=a&branch=b", "it names a branch and a tag"),
            ("ref=a&tag=b", "it names two refs: `a` and `refs/tags/b`"),
            (
                "submodules=maybe",
                "`submodules` is true or false, not `maybe`",
            ),
            ("commit=xyz", "`xyz` is not the id of a commit"),
            ("fetch-by-commit&commit=0123456", "needs the whole id"),
            ("mtime=now", "`mtime` is checkout or commit, not `now`"),
        ] {
            let text = shown(&format!("https://h/x.git?{query}"));
            assert!(text.starts_with("error ") && text.contains(why), "{text}");
        }
        assert!(shown("https://h/x.git?ref=a#b").contains("two refs"));
    }

    #[test]
    fn files_are_called_as_the_path_ends() {
        for (url, want) in [
            ("https://h/a/b.txt?x=/y", "b.txt"),
            ("https://h/a/", "a"),
            ("https://h/a%20b", "a b"),
            ("https://h/a%2Fb", "b"),
            ("https://h/", "__unnamed__"),
            ("https://h", "__unnamed__"),
            ("https://h/a/..", "__unnamed__"),
            ("https://h/%2e%2e", "__unnamed__"),
            ("https://h/a%00b%0a", "a_b_"),
            ("https://h/%zz%", "%zz%"),
        ] {
            assert_eq!(file_name(url), want, "{url}");
        }
    }

    #[test]
    fn an_address_is_shown_without_what_is_confidential() {
        for (url, want) in [
            (
                "https://u:pw@h/x?token=s&ref=v1#f",
                "https://h/x?token=…&ref=v1#f",
            ),
            ("https://u@pw@h", "https://h"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(redact(url), want);
        }
        assert_eq!(without_user("https://u:p@h/x?a=b#c"), "https://h/x?a=b#c");
        assert_eq!(without_user("a@b"), "a@b");
        let pair = |u: &str, p: &str| Some((u.to_owned(), p.to_owned()));
        assert_eq!(userinfo("https://u:p%40@h/x@y"), pair("u", "p@"));
        assert_eq!(userinfo("https://t@h/x"), pair("t", ""));
        assert_eq!(userinfo("https://h/x@y"), None);
    }
}
