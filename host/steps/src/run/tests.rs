//! What a step is given, and what no step can be given.

use super::*;
use stepwell_model::op::EnvVar;

fn op(env: &[(&str, &str)], uncounted: &[(&str, &str)]) -> RunOp {
    let vars = |list: &[(&str, &str)]| {
        list.iter()
            .map(|(n, v)| EnvVar {
                name: (*n).into(),
                value: (*v).into(),
            })
            .collect()
    };
    RunOp {
        env: vars(env),
        uncounted_env: vars(uncounted),
        ..RunOp::new(vec!["true".into()])
    }
}

fn environment_of(
    op: &RunOp,
    mounts: Vec<StepMount>,
    secrets: &[(&str, &[u8])],
) -> Result<Vec<String>, RunError> {
    let facts = tier::tests::ordinary_user();
    let choice = choose_tier(stepwell_model::request::Isolation::Auto, &facts).unwrap();
    let secret =
        |(name, value): &(&str, &[u8])| ((*name).to_owned(), SecretValue::new(value.to_vec()));
    let spec = RunSpec {
        root: Path::new("/"),
        scratch: Path::new("/"),
        op,
        mounts,
        secret_env: secrets.iter().map(secret).collect(),
        resolv_conf: Vec::new(),
        hosts: Vec::new(),
        choice: &choice,
        facts: &facts,
        limits: StepLimits::default(),
        side: SideTable::default(),
        names: None,
        init: &InitProgram::Myself,
    };
    environment(&spec, "/root")
}

#[test]
fn environment_has_defaults_only_where_nothing_is_said() {
    let path = format!("PATH={}", program::DEFAULT_PATH);
    assert_eq!(
        environment_of(&op(&[("A", "1")], &[]), vec![], &[]).unwrap(),
        ["A=1".to_owned(), path, "HOME=/root".to_owned()]
    );
    let given = op(
        &[("PATH", "/p"), ("HOME", ""), ("X", "own")],
        &[("X", "proxy"), ("Y", "2")],
    );
    assert_eq!(
        environment_of(&given, vec![], &[]).unwrap(),
        ["PATH=/p", "HOME=", "X=own", "Y=2"]
    );
}

#[test]
fn secrets_and_agents_are_in_the_environment() {
    let given = op(&[("PATH", "/p"), ("HOME", "/h"), ("TOKEN", "none")], &[]);
    let agent = StepMount {
        target: "/run/agent".into(),
        read_only: false,
        what: What::Agent {
            socket: "/s".into(),
            owner: mounts::Owner {
                mode: 0o600,
                uid: 0,
                gid: 0,
            },
        },
    };
    assert_eq!(
        environment_of(&given, vec![agent], &[("TOKEN", b"x=y")]).unwrap(),
        [
            "PATH=/p",
            "HOME=/h",
            "TOKEN=x=y",
            "SSH_AUTH_SOCK=/run/agent"
        ]
    );
    let error = environment_of(&given, vec![], &[("TOKEN", b"hush\0")]).unwrap_err();
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[test]
fn what_no_process_can_be_given_is_refused() {
    assert!(check(&op(&[], &[])).is_ok());
    assert!(check(&op(&[("A", "\0")], &[])).is_err());
    assert!(
        check(&RunOp {
            cwd: "tmp".into(),
            ..op(&[], &[])
        })
        .is_err()
    );
    assert!(
        check(&RunOp {
            args: vec![],
            ..op(&[], &[])
        })
        .is_err()
    );
}
