//! `RUN --mount`, `--security` and `--device`: what each key becomes, and what is said of wrong ones.

use super::super::host::*;
use super::support::*;

/// The value of `--mount` in `FROM debian AS base`, `FROM app` (whose directory is `/srv`), and the mount it becomes.
/// Vertex 2 is the context, or the first that the mount needs.
const MOUNTS: &[(&str, &str)] = &[
    ("target=/x", "bind /x / of 2 ro"),
    (
        "type=bind,source=a/b,dst=/x/./y/../z",
        "bind /x/z /a/b of 2 ro",
    ),
    (
        "type=bind,src=../../a,destination=x",
        "bind /srv/x /a of 2 ro",
    ),
    ("type=bind,source=a", "bind /srv /a of 2 ro"),
    ("TYPE=Bind,Target=/x,RW", "bind /x / of 2 rw"),
    ("rw=false,target=/x", "bind /x / of 2 ro"),
    ("ro=0,target=/x", "bind /x / of 2 rw"),
    ("readwrite=true,target=/x", "bind /x / of 2 rw"),
    ("from=base,source=/out,target=/x", "bind /x /out of 0 ro"),
    ("from=BASE,target=/x", "bind /x / of 0 ro"),
    ("from=0,target=/x", "bind /x / of 0 ro"),
    (
        "from=busybox:1,source=/bin,target=/x",
        "bind /x /bin of 2 ro",
    ),
    ("from=scratch,target=/x", "bind /x / of 2 ro"),
    ("from=named,target=/x", "bind /x / of 2 ro"),
    ("target=/$A/${A}x", "bind /a/ax / of 2 ro"),
    ("source=$A,target=/x", "bind /x /a of 2 ro"),
    ("type=cache,target=/x", "cache /x /x Shared 755 0:0"),
    ("type=cache,target=/x/../y/", "cache /y /y Shared 755 0:0"),
    (
        "type=cache,target=c//d",
        "cache /srv/c/d c/d Shared 755 0:0",
    ),
    (
        "type=cache,id=$A,target=/x,sharing=locked,mode=0700,uid=$U,gid=6,readonly",
        "cache /x a Locked 700 5:6 ro",
    ),
    (
        "type=cache,target=/x,sharing=PRIVATE",
        "cache /x /x Private 755 0:0",
    ),
    (
        "type=cache,target=/x,from=base,src=in",
        "cache /x /x Shared 755 0:0 base /in of 0",
    ),
    (
        "type=cache,target=/x,from=scratch",
        "cache /x /x Shared 755 0:0",
    ),
    ("type=tmpfs,target=/x", "tmpfs /x None"),
    ("type=tmpfs,target=/x,size=1.5k", "tmpfs /x Some(1536)"),
    (
        "type=secret,id=a",
        "secret a Some(\"/run/secrets/a\") None 400 0:0",
    ),
    (
        "type=secret,source=d/a",
        "secret d/a Some(\"/run/secrets/a\") None 400 0:0",
    ),
    (
        "type=secret,target=/etc/key",
        "secret key Some(\"/etc/key\") None 400 0:0",
    ),
    (
        "type=secret,id=a,target=key",
        "secret a Some(\"/srv/key\") None 400 0:0",
    ),
    (
        "type=secret,id=a,env=A",
        "secret a None Some(\"A\") 400 0:0",
    ),
    (
        "type=secret,id=a,env=A,target=/k,required,mode=440,uid=1,gid=2",
        "secret a Some(\"/k\") Some(\"A\") 440 1:2 required",
    ),
    (
        "type=secret,id=a,required=false",
        "secret a Some(\"/run/secrets/a\") None 400 0:0",
    ),
    ("type=ssh", "ssh default /run/buildkit/ssh_agent.0 600 0:0"),
    (
        "type=ssh,id=a,target=/s,required=true,mode=0666,uid=1",
        "ssh a /s 666 1:0 required",
    ),
];

fn on_app(mount: &str) -> Request {
    let mut request = request(&format!(
        "FROM debian AS base\nRUN x\nFROM app\nARG A=a U=5\nRUN --mount={mount} y"
    ));
    request.contexts.push(NamedContext {
        name: "named".into(),
        image: None,
    });
    request
}

#[test]
fn keys_become_mounts() {
    for (text, want) in MOUNTS {
        let (graph, _) = lowered(&on_app(text), &mut memory());
        let last = graph.lines().last().unwrap_or_default().trim();
        // The stages that a mount does not need are not in the graph, and the numbers are the lower for it.
        let base = graph.contains("library/debian");
        let want = if base {
            want.replace("of 0", "of 1")
        } else {
            want.replace("of 2", "of 1")
        };
        assert_eq!(last, want, "{text}\n{graph}");
    }
}

#[test]
fn a_step_has_many_mounts_in_order() {
    let (graph, _) = built(
        "FROM debian\nRUN --mount=target=/a --mount=type=ssh --mount=type=cache,target=/c --security=sandbox x",
    );
    assert_eq!(
        graph,
        "0 image docker.io/library/debian\n1 context \"\" []\n2 run on 0 [\"/bin/sh\", \"-c\", \"x\"] env [] in /\n  bind /a / of 1 ro\n  ssh default /run/buildkit/ssh_agent.1 600 0:0\n  cache /c /c Shared 755 0:0"
    );
    let mut request = request("FROM debian\nRUN --mount=type=cache,id=a,target=/c x");
    request
        .build_args
        .push(("BUILDKIT_CACHE_MOUNT_NS".into(), "team".into()));
    request.shm_size = Some(7);
    request.limits.push(("nofile".into(), Some(1), None));
    let (graph, _) = lowered(&request, &mut memory());
    assert!(
        graph.ends_with("\n  cache /c team/a Shared 755 0:0 shm 7 limit nofile Some(1) None"),
        "{graph}"
    );
}

#[test]
fn stages_that_are_only_mounted_from_are_built() {
    let (graph, _) = built(
        "FROM debian AS one\nRUN a\nFROM debian AS unused\nRUN b\nFROM scratch\nRUN --mount=from=one,target=/x [\"/x/y\"]",
    );
    assert!(
        graph.contains("\"a\"") && !graph.contains("\"b\""),
        "{graph}"
    );
    // A trigger of the base image may mount from a stage that nothing else needs.
    let mut memory = memory();
    let trigger = ImageConfig {
        on_build: vec!["RUN --mount=from=tools,target=/t x".into()],
        ..ImageConfig::default()
    };
    memory.images.insert("mounts".into(), trigger);
    let request = request("FROM debian AS tools\nRUN a\nFROM mounts");
    let (graph, _) = lowered(&request, &mut memory);
    assert!(
        graph.contains("\"a\"") && graph.contains("bind /t / of"),
        "{graph}"
    );
}

/// The value of `--mount` in a stage whose directory is `/`, and what is said of it.
const WRONG: &[(&str, &str)] = &[
    (
        "type=bimd,target=/x",
        "2:13 InvalidFlag: `bimd` is not a type of mount (did you mean `bind`?)",
    ),
    (
        "type=volume,target=/x",
        "2:13 InvalidFlag: `volume` is not a type of mount (the types are `bind`, `cache`, `tmpfs`, `secret`, `ssh`)",
    ),
    (
        "target=/x,sorce=a",
        "2:23 InvalidFlag: `--mount` has no key `sorce` (did you mean `source`?)",
    ),
    (
        "target=/x,propagation=shared",
        "2:23 InvalidFlag: `--mount` has no key `propagation` (the keys are `type`, `target`, `source`, `from`, `readonly`, `readwrite`, `id`, `sharing`, `size`, `mode`, `uid`, `gid`, `required`, `env`)",
    ),
    (
        "target=/x,,source=a",
        "2:5 InvalidFlag: `--mount` has no key `` (remove the comma: keys are parted by one, without spaces)",
    ),
    (
        "target",
        "2:13 InvalidFlag: the key `target` of `--mount` lacks its value (write `target=…`)",
    ),
    (
        "target=/x,ro=maybe",
        "2:23 InvalidFlag: `readonly` is `true` or `false`, not `maybe`",
    ),
    (
        "source=a",
        "2:5 InvalidFlag: the mount has no target, and the working directory is `/` (add `target=/directory`)",
    ),
    (
        "target=/x/..",
        "2:13 InvalidFlag: `/x/..` is the root directory, on which nothing is mounted (name a directory below it: `target=/directory`)",
    ),
    (
        "target=/x,from=$A",
        "2:28 InvalidFlag: `from` of `--mount` does not take variables (give the stage of a FROM line a name: `FROM $VARIABLE AS name`, and take from that)",
    ),
    (
        "target=/x,from=later",
        "2:23 StageOrder: the stage `later` comes after the one that copies from it (it begins on line 3: move it in front of this one; stages may not use each other in a circle)",
    ),
    (
        "target=/x,from=7",
        "2:23 UnknownStage: there is no stage number 7 (stages of the file: `0`, `later`)",
    ),
    (
        "target=/x,sharing=locked",
        "2:23 InvalidFlag: a mount of type `bind` has no key `sharing` (`sharing` is a key of `cache`)",
    ),
    (
        "target=/x,mode=0700",
        "2:23 InvalidFlag: a mount of type `bind` has no key `mode` (`mode` is a key of `cache`, `secret`, `ssh`)",
    ),
    (
        "type=tmpfs,target=/x,uid=1",
        "2:34 InvalidFlag: a mount of type `tmpfs` has no key `uid` (`uid` is a key of `cache`, `secret`, `ssh`)",
    ),
    (
        "type=cache,target=/x,size=1m",
        "2:34 InvalidFlag: a mount of type `cache` has no key `size` (`size` is a key of `tmpfs`)",
    ),
    (
        "type=cache,target=/x,required",
        "2:34 InvalidFlag: a mount of type `cache` has no key `required` (`required` is a key of `secret`, `ssh`)",
    ),
    (
        "type=cache,target=/x,sharing=lokced",
        "2:34 InvalidFlag: `lokced` is not a way to share a cache (did you mean `locked`?)",
    ),
    (
        "type=cache,target=/x,uid=app",
        "2:34 InvalidFlag: `app` is not a number (`uid` takes a number, not a name, such as `1000`)",
    ),
    (
        "type=cache,target=/x,mode=0888",
        "2:34 InvalidFlag: `0888` is not an octal mode (write octal digits such as `0600`)",
    ),
    (
        "type=tmpfs,target=/x,size=big",
        "2:34 InvalidFlag: `big` is not a size (write a number with a unit, such as `64m` or `1.5g`)",
    ),
    (
        "type=secret",
        "2:13 InvalidFlag: the secret has neither `id` nor `target` (add the id that is given to `--secret id=…`: `id=name`)",
    ),
    (
        "type=secret,id=a,source=b",
        "2:30 InvalidFlag: a secret has `id` or `source`, which are the same, and not both (remove `source=…`)",
    ),
    (
        "type=secret,id=a,from=base",
        "2:30 InvalidFlag: a mount of type `secret` has no key `from` (`from` is a key of `bind`, `cache`, `tmpfs`)",
    ),
    (
        "type=secret,id=a,env=",
        "2:30 InvalidFlag: `` is not the name of a variable",
    ),
    (
        "type=ssh,source=a",
        "2:22 InvalidFlag: a mount of type `ssh` has no key `source` (`source` is a key of `bind`, `cache`, `tmpfs`, `secret`)",
    ),
    (
        "target=/x,source=${A:?b}",
        "2:30 InvalidExpansion: A: b (declare `ARG A` and give `--build-arg A=…`, or set it with ENV)",
    ),
];

#[test]
fn wrong_mounts_are_pointed_at() {
    for (text, want) in WRONG {
        let file = format!("FROM debian\nRUN --mount={text} y\nFROM debian AS later");
        let mut request = request(&file);
        request.target = Some("0".into());
        let list = super::super::build(&request, &mut memory()).expect_err(text);
        assert_eq!(shown(&list), *want, "{text}");
    }
    // Quotes that were taken out leave the whole flag to point at.
    assert_eq!(
        refused("FROM debian\nRUN --mount='target=/x,sorce=a' y"),
        "2:5 InvalidFlag: `--mount` has no key `sorce` (did you mean `source`?)"
    );
    assert_eq!(
        refused("FROM debian\nRUN \\\n  --mount=target=/x,\\\nsorce=a y"),
        "4:1 InvalidFlag: `--mount` has no key `sorce` (did you mean `source`?)"
    );
    assert!(
        refused("FROM debian AS a\nRUN --mount=from=a,target=/x y").contains("2:13 StageOrder")
    );
}

#[test]
fn privileges_and_devices_are_refused_with_the_reason() {
    for (flag, part) in [
        (
            "--security=insecure",
            "2:5 Refused: a step is always confined",
        ),
        ("--security=sanbox", "did you mean `sandbox`?"),
        (
            "--security=none",
            "write `--security=sandbox`, which is the default",
        ),
        (
            "--device=nvidia.com/gpu=all",
            "2:5 Refused: a step gets no devices of the machine",
        ),
    ] {
        let said = refused(&format!("FROM debian\nRUN {flag} x"));
        assert!(said.contains(part), "{said}");
    }
}
