//! `--chown`: numbers, or names that are looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! Without a group, a name brings its primary group and a number itself (Dockerfile reference, COPY --chown).

use stepwell_model::op::Owner;

/// Numeric owner and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerIds {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Why an owner has no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// The image has no such file, so that names mean nothing in it.
    #[error("`{name}` cannot be looked up: the image has no `{file}`; use a number instead")]
    NoFile {
        /// The name of the user or group.
        name: String,
        /// The file.
        file: &'static str,
    },
    /// The file does not have the name.
    #[error("`{name}` is not in the image's `{file}`")]
    Unknown {
        /// The name of the user or group.
        name: String,
        /// The file.
        file: &'static str,
    },
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Finds the numbers of `owner`; `read` returns the content of a file of the image, where it is there.
pub fn resolve<E: From<OwnerError>>(
    owner: &Owner,
    mut read: impl FnMut(&str) -> Result<Option<Vec<u8>>, E>,
) -> Result<OwnerIds, E> {
    let mut line_of = |file: &'static str, name: &str| {
        let content = read(file)?.ok_or_else(|| OwnerError::NoFile {
            name: name.to_owned(),
            file,
        })?;
        let line = find_line(&content, name).map(<[u8]>::to_vec);
        line.ok_or_else(|| {
            E::from(OwnerError::Unknown {
                name: name.to_owned(),
                file,
            })
        })
    };
    let user = match owner.user.parse::<u32>() {
        Ok(uid) => OwnerIds { uid, gid: uid },
        Err(_) => {
            let line = line_of(PASSWD, &owner.user)?;
            let id = |field| number(&line, field);
            let unknown = || OwnerError::Unknown {
                name: owner.user.clone(),
                file: PASSWD,
            };
            OwnerIds {
                uid: id(2).ok_or_else(unknown)?,
                gid: id(3).ok_or_else(unknown)?,
            }
        }
    };
    let gid = match owner.group.as_deref() {
        None => user.gid,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => {
                let unknown = || OwnerError::Unknown {
                    name: group.to_owned(),
                    file: GROUP,
                };
                number(&line_of(GROUP, group)?, 2).ok_or_else(unknown)?
            }
        },
    };
    Ok(OwnerIds { uid: user.uid, gid })
}

fn find_line<'a>(content: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let lines = content.split(|b| *b == b'\n');
    lines
        .into_iter()
        .find(|line| line.split(|b| *b == b':').next() == Some(name.as_bytes()))
}

fn number(line: &[u8], field: usize) -> Option<u32> {
    std::str::from_utf8(line.split(|b| *b == b':').nth(field)?)
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD_TEXT: &str =
        "root:x:0:0:root:/root:/bin/sh\n# comment\nweb:x:33:34::/:/bin/false\nbroken:x\n";
    const GROUP_TEXT: &str = "root:x:0:\nstaff:x:50:web\n";

    fn ids(text: &str) -> Result<(u32, u32), OwnerError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group.to_owned())),
            None => (text, None),
        };
        let owner = Owner {
            user: user.to_owned(),
            group,
        };
        let read = |file: &str| {
            Ok(Some(
                if file == PASSWD {
                    PASSWD_TEXT
                } else {
                    GROUP_TEXT
                }
                .into(),
            ))
        };
        resolve::<OwnerError>(&owner, read).map(|ids| (ids.uid, ids.gid))
    }

    #[test]
    fn names_and_numbers() {
        let table = [
            ("55:staff", 55, 50),
            ("web", 33, 34),
            ("1", 1, 1),
            ("10:11", 10, 11),
            ("web:0", 33, 0),
            ("root", 0, 0),
        ];
        for (text, uid, gid) in table {
            assert_eq!(ids(text), Ok((uid, gid)), "{text}");
        }
    }

    #[test]
    fn unknown_names_are_named() {
        let unknown = |name: &str, file| {
            Err(OwnerError::Unknown {
                name: name.into(),
                file,
            })
        };
        assert_eq!(ids("nobody"), unknown("nobody", PASSWD));
        assert_eq!(ids("broken"), unknown("broken", PASSWD));
        assert_eq!(ids("web:nogroup"), unknown("nogroup", GROUP));
        let owner = Owner {
            user: "web".into(),
            group: None,
        };
        let error = resolve::<OwnerError>(&owner, |_| Ok(None)).unwrap_err();
        assert_eq!(
            error,
            OwnerError::NoFile {
                name: "web".into(),
                file: PASSWD
            }
        );
    }
}
