//! The contexts that are built.

use std::path::Path;

/// One context.
pub struct Case {
    /// Its name on the command line and in the table.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    dockerfile: &'static str,
    /// Small files in the context.
    files: usize,
}

/// What happened before a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: no state at all.
    Cold,
    /// The same build.
    NoChange,
    /// The same build, and one file of the context was changed.
    OneFile,
}

impl Mode {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::NoChange => "no change",
            Self::OneFile => "one file",
        }
    }
}

/// All cases, in the order in which they are measured.
pub const CASES: &[Case] = &[
    Case {
        name: "tiny",
        what: "busybox, five RUN, three COPY, two stages",
        files: 3,
        dockerfile: "FROM @REGISTRY@/busybox:1 AS build\nRUN echo one > /one\nRUN echo two > /two\nCOPY files /src\nRUN cat /one /two /src/d0/f0 > /all\n\
                     FROM @REGISTRY@/busybox:1\nRUN mkdir /app\nCOPY --from=build /all /app/all\nCOPY files/d0/f0 /app/\nRUN sha256sum /app/* > /sums\n",
    },
    Case {
        name: "debian-apt",
        what: "Debian, apt-get install of Python, 2,000 files copied, compileall",
        files: 2_000,
        dockerfile: "FROM @DEBIAN@\nRUN apt-get update && apt-get install -y --no-install-recommends curl python3 && rm -rf /var/lib/apt/lists/*\nWORKDIR /app\nCOPY files /app\n\
                     RUN python3 -m compileall -q /usr/lib/python3.11/json /usr/lib/python3.11/email\nCMD [\"python3\"]\n",
    },
    Case {
        name: "manyfiles",
        what: "Debian, one RUN makes 50,000 files, ten RUN touch one file each, 5,000 files copied",
        files: 5_000,
        dockerfile: "FROM @DEBIAN@\n\
                     RUN mkdir /many && cd /many && for d in $(seq 500); do mkdir $d; for f in $(seq 100); do echo $d/$f > $d/$f; done; done\n\
                     RUN echo 1 > /many/1/1\nRUN echo 2 > /many/2/1\nRUN echo 3 > /many/3/1\nRUN echo 4 > /many/4/1\nRUN echo 5 > /many/5/1\n\
                     RUN echo 6 > /many/6/1\nRUN echo 7 > /many/7/1\nRUN echo 8 > /many/8/1\nRUN echo 9 > /many/9/1\nRUN echo 10 > /many/10/1\n\
                     COPY files /files\n",
    },
];

impl Case {
    /// Writes the context.
    pub fn write(&self, dir: &Path, registry: &str, debian: &str) -> Result<(), String> {
        let io = |e: std::io::Error| format!("the context of `{}`: {e}", self.name);
        let text = self
            .dockerfile
            .replace("@REGISTRY@", registry)
            .replace("@DEBIAN@", debian);
        std::fs::write(dir.join("Dockerfile"), text).map_err(io)?;
        for n in 0..self.files {
            let sub = dir.join("files").join(format!("d{}", n / 100));
            if n % 100 == 0 {
                std::fs::create_dir_all(&sub).map_err(io)?;
            }
            std::fs::write(
                sub.join(format!("f{n}")),
                format!("file {n}\n").repeat(1 + n % 50),
            )
            .map_err(io)?;
        }
        Ok(())
    }

    /// Changes one file of the context.
    pub fn touch(&self, dir: &Path) -> Result<(), String> {
        std::fs::write(dir.join("files/d0/f0"), "another content\n")
            .map_err(|e| format!("the context of `{}`: {e}", self.name))
    }
}
