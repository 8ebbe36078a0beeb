use super::*;

fn full() -> ImageDocument {
    let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    ImageDocument {
        platform: "linux/arm/v7".parse().unwrap(),
        os_version: String::new(),
        os_features: Vec::new(),
        config: ImageConfig {
            env: strings(&["PATH=/bin", "B=1", "A=2"]),
            cmd: Some(strings(&["-c", "<x> & y"])),
            entrypoint: Some(strings(&["/bin/sh"])),
            working_dir: "/srv".into(),
            user: "app:app".into(),
            labels: [("z".into(), "1".into()), ("a".into(), "é".into())].into(),
            exposed_ports: ["80/tcp".into(), "53/udp".into()].into(),
            volumes: ["/data".into()].into(),
            stop_signal: "SIGINT".into(),
            healthcheck: Some(Healthcheck {
                test: strings(&["CMD", "true"]),
                interval: 5_000_000_000,
                retries: 3,
                ..Healthcheck::default()
            }),
            shell: Some(strings(&["/bin/bash", "-c"])),
            on_build: strings(&["RUN make"]),
            author: "me".into(),
        },
        created: Some(time(1_700_000_000, 5)),
        history: vec![
            HistoryEntry {
                created: Some(time(0, 0)),
                created_by: "ADD x".into(),
                ..HistoryEntry::default()
            },
            HistoryEntry {
                created_by: "CMD".into(),
                comment: "c".into(),
                empty_layer: true,
                ..HistoryEntry::default()
            },
        ],
        diff_ids: vec![Digest::of(b"")],
    }
}

#[test]
fn the_text_is_as_buildkit_has_it() {
    let want = concat!(
        r#"{"architecture":"arm","author":"me","config":{"User":"app:app","ExposedPorts":{"53/udp":{},"80/tcp":{}},"#,
        r#""Env":["PATH=/bin","B=1","A=2"],"Entrypoint":["/bin/sh"],"Cmd":["-c","<x> & y"],"Volumes":{"/data":{}},"#,
        r#""WorkingDir":"/srv","Labels":{"a":"é","z":"1"},"StopSignal":"SIGINT","#,
        r#""Healthcheck":{"Test":["CMD","true"],"Interval":5000000000,"Retries":3},"OnBuild":["RUN make"],"#,
        r#""Shell":["/bin/bash","-c"]},"created":"2023-11-14T22:13:20.000000005Z","#,
        r#""history":[{"created":"1970-01-01T00:00:00Z","created_by":"ADD x"},{"created_by":"CMD","comment":"c","#,
        r#""empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":["#,
        r#""sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"variant":"v7"}"#,
    );
    assert_eq!(String::from_utf8(full().encode()).unwrap(), want);
    assert_eq!(ImageDocument::parse(want.as_bytes()).unwrap(), full());
}

#[test]
fn a_docker_config_with_nulls_and_old_fields_is_read() {
    let text = r#"{"id":"x","architecture":"amd64","os":"linux","docker_version":"1.9","container":"abc",
        "config":{"Hostname":"h","Tty":false,"Env":null,"Cmd":null,"Entrypoint":null,"Labels":null,"Volumes":null,
                  "ExposedPorts":null,"OnBuild":null,"WorkingDir":"","Image":"y","ArgsEscaped":true},
        "container_config":{"Cmd":["x"]},"created":"2020-01-01T00:00:00Z","history":null,
        "rootfs":{"type":"layers","diff_ids":null}}"#;
    let parsed = ImageDocument::parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.config, ImageConfig::default());
    assert_eq!(parsed.platform.to_string(), "linux/amd64");
    let again = String::from_utf8(parsed.encode()).unwrap();
    assert!(
        !again.contains("container") && again.contains(r#""diff_ids":[]"#),
        "{again}"
    );
}

#[test]
fn broken_documents_are_refused() {
    for bad in [
        "",
        "null",
        "{}",
        "[]",
        r#"{"rootfs":{"diff_ids":["sha256:00"]}}"#,
        r#"{"rootfs":{},"config":{"Env":"x"}}"#,
    ] {
        assert!(
            matches!(
                ImageDocument::parse(bad.as_bytes()),
                Err(ManifestError::Json { .. })
            ),
            "{bad}"
        );
    }
    let large = vec![b' '; CONFIG_LIMIT as usize + 1];
    assert!(matches!(
        ImageDocument::parse(&large),
        Err(ManifestError::TooLarge { .. })
    ));
}

#[test]
fn a_history_that_does_not_fit_is_made_to_fit() {
    let mut document = full();
    document.diff_ids.push(Digest::of(b"2"));
    let parsed = ImageDocument::parse(&document.encode()).unwrap();
    assert_eq!(parsed.history.len(), 3);
    assert!(!parsed.history[2].empty_layer);
    document.diff_ids.clear();
    let parsed = ImageDocument::parse(&document.encode()).unwrap();
    assert!(parsed.history.iter().all(|entry| entry.empty_layer));
}

#[test]
fn times_are_clamped_with_those_of_the_base() {
    let mut document = full();
    document.clamp_times(1000).unwrap();
    assert_eq!(document.created.as_deref(), Some("1970-01-01T00:16:40Z"));
    assert_eq!(
        document.history[0].created.as_deref(),
        Some("1970-01-01T00:00:00Z")
    );
    assert_eq!(
        document.history[1].created.as_deref(),
        Some("1970-01-01T00:16:40Z")
    );
    document.created = Some("yesterday".into());
    assert!(matches!(
        document.clamp_times(0),
        Err(ManifestError::Time(_))
    ));
}
