use super::*;

fn env() -> Env {
    [
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("KOREAN", "한국어"),
        ("NULL", ""),
        ("A", "hello world"),
        ("P", "foo/bar/baz.tar.gz"),
        ("D", "a.b.c"),
        ("X", "xyxy"),
    ]
    .into_iter()
    .collect()
}

fn expand(text: &str) -> Result<String, ExpandError> {
    Expander::new('\\').expand(text, &env()).map(|e| e.text)
}

/// Input and result; the behaviour of moby's shell lexer.
const TABLE: &[(&str, &str)] = &[
    ("hello", "hello"),
    ("he'll'o", "hello"),
    ("'hello there'", "hello there"),
    ("he\"ll\"o", "hello"),
    ("hello\\ world", "hello world"),
    ("hello\\\\ world", "hello\\ world"),
    ("he\\'llo", "he'llo"),
    ("\"he'llo\"", "he'llo"),
    ("'he\"llo'", "he\"llo"),
    ("\"he\\\"llo\"", "he\"llo"),
    ("\"he\\xllo\"", "he\\xllo"),
    ("'he\\xllo'", "he\\xllo"),
    ("\"\\\\\"", "\\"),
    ("\"hello\\\\there\"", "hello\\there"),
    ("hello\\", "hello"),
    ("\"$PWD\"", "/home"),
    ("'$PWD'", "$PWD"),
    ("\\$PWD", "$PWD"),
    ("\"\\$PWD\"", "$PWD"),
    ("$PWD", "/home"),
    ("$PWD.", "/home."),
    ("${PWD}x", "/homex"),
    ("$PWDx", ""),
    ("$", "$"),
    ("$.", "$."),
    ("he$PWD", "he/home"),
    ("$1", ""),
    ("$11xy", "xy"),
    ("a$@b", "ab"),
    ("a$$b", "ab"),
    ("$KOREAN", "한국어"),
    ("안녕$KOREAN", "안녕한국어"),
    ("안녕\\$KOREAN", "안녕$KOREAN"),
    ("${NONE:-def}", "def"),
    ("${NULL:-def}", "def"),
    ("${NULL-def}", ""),
    ("${NONE-def}", "def"),
    ("${PWD:-def}", "/home"),
    ("${NONE:-${PWD}}", "/home"),
    ("${NONE:-$PWD/x}", "/home/x"),
    ("${NONE:-\"a b\"}", "a b"),
    ("${NONE:-}", ""),
    ("${PWD:+alt}", "alt"),
    ("${PWD+alt}", "alt"),
    ("${NULL:+alt}", ""),
    ("${NULL+alt}", "alt"),
    ("${NONE:+alt}", ""),
    ("${NONE+alt}", ""),
    ("${PWD:?no}", "/home"),
    ("${NULL?no}", ""),
    ("${PWD:?}", "/home"),
    ("${P#*/}", "bar/baz.tar.gz"),
    ("${P##*/}", "baz.tar.gz"),
    ("${P%.*}", "foo/bar/baz.tar"),
    ("${P%%.*}", "foo/bar/baz"),
    ("${P%/*}", "foo/bar"),
    ("${P%%/*}", "foo"),
    ("${P#foo}", "/bar/baz.tar.gz"),
    ("${P#nope}", "foo/bar/baz.tar.gz"),
    ("${P#f??}", "/bar/baz.tar.gz"),
    ("${P#\\*}", "foo/bar/baz.tar.gz"),
    ("${D#*.}", "b.c"),
    ("${D##*.}", "c"),
    ("${D%.*}", "a.b"),
    ("${D%%.*}", "a"),
    ("${NONE#x}", ""),
    ("${P/o/0}", "f0o/bar/baz.tar.gz"),
    ("${P//o/0}", "f00/bar/baz.tar.gz"),
    ("${P//\\//-}", "foo-bar-baz.tar.gz"),
    ("${P/\\/bar/}", "foo/baz.tar.gz"),
    ("${X//x/}", "yy"),
    ("${X/y*/Z}", "xZ"),
    ("${X//*/Z}", "Z"),
    ("${X/z/Z}", "xyxy"),
    ("${X//?/.}", "...."),
    ("${KOREAN//국/*}", "한*어"),
    ("${PWD//h/[$SHELL]}", "/[bash]ome"),
    ("~/$PWD", "~//home"),
    ("a b  c", "a b  c"),
    ("", ""),
];

#[test]
fn texts() {
    for (input, want) in TABLE {
        assert_eq!(expand(input).as_deref(), Ok(*want), "{input}");
    }
}

#[test]
fn words_split_after_expansion_and_not_in_quotes() {
    for (input, want) in [
        ("$A", vec!["hello", "world"]),
        ("\"$A\"", vec!["hello world"]),
        ("a$A b", vec!["ahello", "world", "b"]),
        (" a  b ", vec!["a", "b"]),
        ("a\\ b c", vec!["a b", "c"]),
        ("'a b'c d", vec!["a bc", "d"]),
        ("$NULL", vec![]),
    ] {
        assert_eq!(
            Expander::new('\\').expand(input, &env()).unwrap().words,
            want,
            "{input}"
        );
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let required = |name: &str, message: &str| ExpandError::Required {
        name: name.into(),
        message: message.into(),
    };
    for (input, want) in [
        ("${", ExpandError::MissingBrace),
        ("${PWD", ExpandError::MissingBrace),
        ("${PWD:", ExpandError::MissingBrace),
        ("${PWD:-x", ExpandError::MissingBrace),
        ("${}", ExpandError::BadSubstitution),
        ("${:-x}", ExpandError::BadSubstitution),
        ("${{x}}", ExpandError::BadSubstitution),
        ("${PWD^x}", ExpandError::Modifier("^".into())),
        ("${PWD:x}", ExpandError::Modifier(":x".into())),
        ("${PWD/x}", ExpandError::MissingSlash),
        ("${PWD/x/y", ExpandError::MissingBrace),
        ("${NONE:?}", required("NONE", "is not allowed to be unset")),
        ("${NULL:?}", required("NULL", "is not allowed to be empty")),
        ("${NONE?say why}", required("NONE", "say why")),
        ("'a", ExpandError::Quote('\'')),
        ("\"a", ExpandError::Quote('"')),
        ("${PWD#\\x}", ExpandError::Pattern("\\x".into())),
    ] {
        assert_eq!(expand(input), Err(want), "{input}");
    }
}

#[test]
fn the_escape_character_can_be_a_backtick() {
    let backtick = Expander::new('`');
    for (input, want) in [
        ("a`$PWD", "a$PWD"),
        ("c:\\dir\\$PWD", "c:\\dir\\/home"),
        ("\"`\"\"", "\""),
    ] {
        assert_eq!(
            backtick.expand(input, &env()).unwrap().text,
            want,
            "{input}"
        );
    }
}

#[test]
fn variants_keep_quotes_escapes_and_unset_names() {
    let raw = Expander {
        raw_quotes: true,
        raw_escapes: true,
        keep_unset: true,
        ..Expander::new('\\')
    };
    let input = "\"a\" 'b' \\c $NONE ${NONE} ${NONE:-x} $PWD";
    let kept = raw.expand(input, &env()).unwrap().text;
    assert_eq!(kept, input.replace("$PWD", "/home"));
    let heredoc = Expander::heredoc()
        .expand("it's \"$PWD\" \\$PWD\n", &env())
        .unwrap();
    assert_eq!(heredoc.text, "it's \"/home\" $PWD\n");
    let seen = Expander::new('\\')
        .expand("$A$NONE$A${PWD:+$B}", &env())
        .unwrap();
    assert_eq!(
        (seen.used, seen.missing),
        (
            vec!["A".to_owned(), "PWD".into()],
            vec!["NONE".to_owned(), "B".into()]
        )
    );
}

#[test]
fn hostile_input_ends_in_an_error() {
    let deep = "${a:-".repeat(10_000);
    assert_eq!(expand(&deep), Err(ExpandError::TooDeep));
    let env: Env = [("A", "x".repeat(2_000))].into_iter().collect();
    assert_eq!(
        Expander::new('\\').expand(&"$A".repeat(1_000), &env),
        Err(ExpandError::TooLong)
    );
    assert_eq!(
        Expander::new('\\').expand(&format!("\"{}\"", "$A".repeat(1_000)), &env),
        Err(ExpandError::TooLong)
    );
    let stars = format!("${{A#{}z}}", "*x".repeat(400));
    assert_eq!(
        Expander::new('\\').expand(&stars, &env).unwrap().text.len(),
        2_000
    );
    assert!(matches!(
        expand(&format!("${{PWD#{}}}", "*x".repeat(4_000))),
        Err(ExpandError::Pattern(_))
    ));
}
