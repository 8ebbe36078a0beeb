//! Finding a step's program in its `PATH` inside the tree, and saying why one cannot be executed: which file is
//! missing, which interpreter, or for what machine it was made.

use std::fmt;

use rustix::fs::FileType;
use rustix::io::Errno;
use stepwell_sys::error::errno_name;

use super::tree::Tree;

/// Docker's search path, for steps whose environment has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecFailure {
    /// No directory of the search path has it.
    NotFound {
        /// The name looked for.
        program: String,
        /// The search path.
        path: String,
    },
    /// There is no such file.
    Missing {
        /// Path in the step.
        program: String,
    },
    /// The file is not executable, or not a file.
    NotExecutable {
        /// Path in the step.
        program: String,
        /// What it is instead.
        what: &'static str,
    },
    /// The interpreter that the file names is not there.
    InterpreterMissing {
        /// Path in the step.
        program: String,
        /// The interpreter, from the `#!` line or the ELF header.
        interpreter: String,
        /// Whether it is the dynamic linker of an ELF file.
        linker: bool,
    },
    /// The file was made for another machine.
    OtherMachine {
        /// Path in the step.
        program: String,
        /// Name or number of that machine.
        machine: String,
    },
    /// The program is one of 32 bits, and such are not executed here.
    Narrow {
        /// Path in the step.
        program: String,
    },
    /// The file has no format that the kernel executes.
    UnknownFormat {
        /// Path in the step.
        program: String,
    },
    /// Something else.
    Refused {
        /// Path in the step.
        program: String,
        /// The kernel's answer.
        errno: i32,
    },
}

impl ExecFailure {
    /// The status that a shell gives in this case: 127 where something is missing, else 126.
    pub fn status(&self) -> i32 {
        match self {
            Self::NotFound { .. } | Self::Missing { .. } | Self::InterpreterMissing { .. } => 127,
            _ => 126,
        }
    }
}

impl fmt::Display for ExecFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { program, path } => write!(
                f,
                "`{program}` is in no directory of the step's PATH `{path}`"
            ),
            Self::Missing { program } => write!(f, "`{program}` does not exist in the image"),
            Self::NotExecutable { program, what } => {
                write!(f, "`{program}` cannot be executed: it is {what}")
            }
            Self::InterpreterMissing {
                program,
                interpreter,
                linker: true,
            } => {
                write!(
                    f,
                    "`{program}` needs the dynamic linker `{interpreter}`, which does not exist in the image"
                )
            }
            Self::InterpreterMissing {
                program,
                interpreter,
                linker: false,
            } => {
                write!(
                    f,
                    "`{program}` is a script for `{interpreter}`, which does not exist in the image"
                )
            }
            Self::OtherMachine { program, machine } => write!(
                f,
                "`{program}` is a program for {machine}, not for this machine"
            ),
            Self::Narrow { program } => write!(
                f,
                "`{program}` is a program of 32 bits, which this kernel does not run (`CONFIG_IA32_EMULATION`, or `ia32_emulation=1` on its command line)"
            ),
            Self::UnknownFormat { program } => {
                write!(f, "`{program}` is no program and has no `#!` line")
            }
            Self::Refused { program, errno } => {
                write!(f, "`{program}` cannot be executed ({})", errno_name(*errno))
            }
        }
    }
}

/// Finds the file that `program` means for a step with the search path `path` and the directory `cwd`.
pub fn find(tree: &Tree, program: &str, path: &str, cwd: &str) -> Result<String, ExecFailure> {
    if program.contains('/') {
        let file = absolute(cwd, program);
        return match check(tree, &file) {
            Ok(()) => Ok(file),
            Err(failure) => Err(failure),
        };
    }
    let mut blocked = None;
    for dir in path.split(':') {
        let file = absolute(
            cwd,
            &format!("{}/{program}", if dir.is_empty() { "." } else { dir }),
        );
        match check(tree, &file) {
            Ok(()) => return Ok(file),
            Err(ExecFailure::Missing { .. }) => {}
            // As execvp(3): go on, and tell of it only if nothing better comes.
            Err(failure) => blocked = blocked.or(Some(failure)),
        }
    }
    Err(blocked.unwrap_or_else(|| ExecFailure::NotFound {
        program: program.to_owned(),
        path: path.to_owned(),
    }))
}

fn absolute(cwd: &str, path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", cwd.trim_end_matches('/'))
    }
}

fn check(tree: &Tree, file: &str) -> Result<(), ExecFailure> {
    let program = file.to_owned();
    // What leads to a graft (`/proc/self/exe`) is for the step to find.
    if ["/proc/", "/dev/"]
        .iter()
        .any(|graft| file.starts_with(graft))
    {
        return Ok(());
    }
    match tree.stat(file) {
        Err(Errno::NOENT | Errno::NOTDIR) => Err(ExecFailure::Missing { program }),
        Err(errno) => Err(ExecFailure::Refused {
            program,
            errno: errno.raw_os_error(),
        }),
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_mode & 0o111 != 0 => Ok(()),
            FileType::RegularFile => Err(ExecFailure::NotExecutable {
                program,
                what: "a file without the executable bit",
            }),
            FileType::Directory => Err(ExecFailure::NotExecutable {
                program,
                what: "a directory",
            }),
            _ => Err(ExecFailure::NotExecutable {
                program,
                what: "not a regular file",
            }),
        },
    }
}

/// Says why execve(2) of `file` answered `errno`.
pub fn diagnose(tree: &Tree, file: &str, errno: i32) -> ExecFailure {
    let program = file.to_owned();
    if let Err(failure) = check(tree, file) {
        return failure;
    }
    // Enough for the headers of any executable.
    const HEAD: u64 = 64 << 10;
    let head = tree.read(file, HEAD).unwrap_or_default();
    let interpreter = script_interpreter(&head)
        .map(|i| (i, false))
        .or_else(|| Some((elf_interpreter(&head)?, true)));
    match (errno, interpreter) {
        (_, Some((interpreter, linker))) if tree.stat(&interpreter).is_err() => {
            ExecFailure::InterpreterMissing {
                program,
                interpreter,
                linker,
            }
        }
        (libc::ENOEXEC, _) => match elf_machine(&head) {
            Some(machine) if NARROW_MACHINE == Some(machine) => ExecFailure::Narrow { program },
            Some(machine) if machine != native_machine() => ExecFailure::OtherMachine {
                program,
                machine: machine_name(machine),
            },
            _ => ExecFailure::UnknownFormat { program },
        },
        _ => ExecFailure::Refused { program, errno },
    }
}

fn script_interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let name = line
        .split(|b| b" \t".contains(b))
        .find(|word| !word.is_empty())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

fn field<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..at.checked_add(N)?)?.try_into().ok()
}

const ELF: &[u8] = b"\x7fELF";

fn elf_machine(head: &[u8]) -> Option<u16> {
    let little = head.strip_prefix(ELF)?.get(1)? == &1;
    let bytes = field(head, 18)?;
    Some(if little {
        u16::from_le_bytes(bytes)
    } else {
        u16::from_be_bytes(bytes)
    })
}

/// Reads PT_INTERP of a 64-bit little-endian ELF file (elf(5)).
fn elf_interpreter(head: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(field(head, 32)?)).ok()?;
    let (size, count) = (
        u16::from_le_bytes(field(head, 54)?),
        u16::from_le_bytes(field(head, 56)?),
    );
    let entry = |i: u16| table.checked_add(usize::from(size) * usize::from(i));
    let interp = (0..count)
        .filter_map(entry)
        .find(|at| field(head, *at).map(u32::from_le_bytes) == Some(PT_INTERP))?;
    let offset = usize::try_from(u64::from_le_bytes(field(head, interp.checked_add(8)?)?)).ok()?;
    let text = head.get(offset..)?.split(|b| *b == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

const MACHINES: &[(u16, &str)] = &[
    (3, "386"),
    (8, "mips"),
    (20, "ppc"),
    (21, "ppc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "amd64"),
    (183, "arm64"),
    (243, "riscv64"),
    (258, "loong64"),
];

fn machine_name(machine: u16) -> String {
    let known = MACHINES.iter().find(|(number, _)| *number == machine);
    known.map_or_else(
        || format!("machine {machine}"),
        |(_, name)| (*name).to_owned(),
    )
}

/// Whose programs most kernels of this machine run as well.
const NARROW_MACHINE: Option<u16> = if cfg!(target_arch = "x86_64") {
    Some(3)
} else if cfg!(target_arch = "aarch64") {
    Some(40)
} else {
    None
};

const fn native_machine() -> u16 {
    if cfg!(target_arch = "aarch64") {
        183
    } else {
        62
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree(files: &[(&str, &[u8], u32)]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content, mode) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        let tree = Tree::open(dir.path()).unwrap();
        (dir, tree)
    }

    #[test]
    fn looks_in_the_path_of_the_step_and_stays_in_the_tree() {
        let (dir, tree) = tree(&[
            ("usr/bin/a", b"", 0o755),
            ("bin/b", b"", 0o644),
            ("usr/bin/b", b"", 0o755),
        ]);
        symlink("/usr/bin/a", dir.path().join("bin/link")).unwrap();
        symlink("/etc/passwd", dir.path().join("bin/out")).unwrap();
        assert_eq!(
            find(&tree, "a", "/bin:/usr/bin", "/"),
            Ok("/usr/bin/a".into())
        );
        assert_eq!(
            find(&tree, "b", "/bin:/usr/bin", "/"),
            Ok("/usr/bin/b".into())
        );
        assert_eq!(find(&tree, "link", "/bin", "/"), Ok("/bin/link".into()));
        assert_eq!(
            find(&tree, "./a", "", "/usr/bin"),
            Ok("/usr/bin/./a".into())
        );
        assert_eq!(find(&tree, "out", "/bin", "/").unwrap_err().status(), 127);
        let failure = find(&tree, "b", "/bin", "/").unwrap_err();
        assert_eq!(failure.status(), 126);
        assert_eq!(
            failure.to_string(),
            "`/bin/b` cannot be executed: it is a file without the executable bit"
        );
        assert_eq!(
            find(&tree, "c", "/bin", "/").unwrap_err().to_string(),
            "`c` is in no directory of the step's PATH `/bin`"
        );
    }

    #[test]
    fn says_which_interpreter_or_machine() {
        let mut arm = ELF.to_vec();
        arm.extend([2, 1, 1]);
        arm.resize(64, 0);
        arm[18] = if native_machine() == 62 { 183 } else { 62 };
        let mut narrow = arm.clone();
        narrow[18] = NARROW_MACHINE.unwrap_or_default() as u8;
        let (_dir, tree) = tree(&[
            ("s", b"#! /usr/bin/python9 -x\n", 0o755),
            ("t", b"text", 0o755),
            ("arm", &arm, 0o755),
            ("narrow", &narrow, 0o755),
        ]);
        let text = |file, errno| diagnose(&tree, file, errno).to_string();
        assert_eq!(
            text("/s", libc::ENOENT),
            "`/s` is a script for `/usr/bin/python9`, which does not exist in the image"
        );
        assert_eq!(
            text("/t", libc::ENOEXEC),
            "`/t` is no program and has no `#!` line"
        );
        assert!(text("/arm", libc::ENOEXEC).starts_with("`/arm` is a program for "));
        assert!(text("/narrow", libc::ENOEXEC).contains("this kernel does not run"));
    }

    #[test]
    fn finds_the_linker_of_a_real_program() {
        let (_dir, empty) = tree(&[("sh", &std::fs::read("/bin/sh").unwrap(), 0o755)]);
        match diagnose(&empty, "/sh", libc::ENOENT) {
            ExecFailure::InterpreterMissing {
                linker: true,
                interpreter,
                ..
            } => assert!(interpreter.contains("ld")),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn hostile_headers_do_no_harm() {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(128, 0xff);
        assert_eq!(elf_interpreter(&head), None);
        for len in 0..head.len() {
            let _ = (
                elf_interpreter(&head[..len]),
                elf_machine(&head[..len]),
                script_interpreter(&head[..len]),
            );
        }
    }
}
