//! Who `USER` means: names and numbers looked up in the `/etc/passwd` and `/etc/group` of the step's own tree,
//! with docker's rules.
//!
//! Pure: [`super::tree`] reads the files.

use super::types::Credentials;

/// Whom a step runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The ids.
    pub credentials: Credentials,
    /// Home directory: from `/etc/passwd`, else `/`.
    pub home: String,
}

/// Why `USER` means nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A name that `/etc/passwd` does not have.
    #[error("user `{0}` is not in the image's `/etc/passwd`")]
    UnknownUser(String),
    /// A name that `/etc/group` does not have.
    #[error("group `{0}` is not in the image's `/etc/group`")]
    UnknownGroup(String),
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Looks up `user[:group]`; empty means root.
///
/// A number that is in no file is taken as it is, with group 0.  Supplementary groups are those whose members
/// name the user, unless a group is given.
pub fn look_up(spec: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user, wanted_group) = spec.split_once(':').unwrap_or((spec, ""));
    let user = if user.is_empty() { "0" } else { user };
    let account = accounts(passwd).find(|a| a.name == user).or_else(|| {
        let number: u32 = user.parse().ok()?;
        accounts(passwd).find(|a| a.uid == number)
    });
    let mut found = match &account {
        Some(a) => User {
            credentials: Credentials {
                uid: a.uid,
                gid: a.gid,
                groups: Vec::new(),
            },
            home: a.home.to_owned(),
        },
        None => {
            let uid = user
                .parse()
                .map_err(|_| UserError::UnknownUser(user.to_owned()))?;
            User {
                credentials: Credentials {
                    uid,
                    ..Credentials::default()
                },
                home: "/".to_owned(),
            }
        }
    };
    if found.home.is_empty() {
        "/".clone_into(&mut found.home);
    }
    if wanted_group.is_empty() {
        let name = account.map_or("", |a| a.name);
        found.credentials.groups = memberships(group, name);
    } else {
        found.credentials.gid = group_id(wanted_group, group)?;
    }
    Ok(found)
}

fn group_id(wanted: &str, group: &str) -> Result<u32, UserError> {
    let named = groups(group).find(|g| g.name == wanted).map(|g| g.gid);
    named
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| UserError::UnknownGroup(wanted.to_owned()))
}

fn memberships(group: &str, user: &str) -> Vec<u32> {
    let member = |g: &Group<'_>| !user.is_empty() && g.members.split(',').any(|m| m == user);
    groups(group).filter(member).map(|g| g.gid).collect()
}

fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim_end().split(':').collect();
        let home = fields.get(5).copied().unwrap_or_default();
        Some(Account {
            name: fields.first()?,
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home,
        })
    })
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim_end().split(':').collect();
        let members = fields.get(3).copied().unwrap_or_default();
        Some(Group {
            name: fields.first()?,
            gid: fields.get(2)?.parse().ok()?,
            members,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:www:/var/www:/bin/false\nbad line\n7:x:70:71::/seven:\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nadm:x:4:root,www\nlog:x:5:www\n";

    fn ids(spec: &str) -> (u32, u32, Vec<u32>, String) {
        let user = look_up(spec, PASSWD, GROUP).unwrap();
        (
            user.credentials.uid,
            user.credentials.gid,
            user.credentials.groups,
            user.home,
        )
    }

    #[test]
    fn looks_up_as_docker_does() {
        assert_eq!(ids(""), (0, 0, vec![4], "/root".into()));
        assert_eq!(ids("www"), (33, 34, vec![4, 5], "/var/www".into()));
        assert_eq!(ids("33"), (33, 34, vec![4, 5], "/var/www".into()));
        assert_eq!(ids("www:adm"), (33, 4, vec![], "/var/www".into()));
        assert_eq!(ids("1000"), (1000, 0, vec![], "/".into()));
        assert_eq!(ids("1000:1001"), (1000, 1001, vec![], "/".into()));
        assert_eq!(
            ids("7"),
            (70, 71, vec![], "/seven".into()),
            "a name goes before a number"
        );
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(
            look_up("app", PASSWD, GROUP),
            Err(UserError::UnknownUser("app".into()))
        );
        assert_eq!(
            look_up("www:app", PASSWD, GROUP),
            Err(UserError::UnknownGroup("app".into()))
        );
        assert_eq!(
            look_up("app", "", ""),
            Err(UserError::UnknownUser("app".into()))
        );
    }
}
