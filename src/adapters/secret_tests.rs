//! Secrets that change, that go away, and that are not shown.

use std::io::Write;

use super::*;

/// A mounted secret as Kubernetes lays it out: a link to a folder's link, which is exchanged as a whole.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(text: &str) -> Mounted {
        let mounted = Mounted(tempfile::tempdir().expect("a folder"));
        mounted.change(text);
        std::os::unix::fs::symlink("..data/password", mounted.path()).expect("a link");
        mounted
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("password")
    }

    fn change(&self, text: &str) {
        let root = self.0.path();
        let folder = tempfile::tempdir_in(root).expect("a folder").keep();
        std::fs::write(folder.join("password"), text).expect("a file");
        std::os::unix::fs::symlink(folder, root.join("..new")).expect("a link");
        std::fs::rename(root.join("..new"), root.join("..data")).expect("it is exchanged");
    }

    fn secret(&self, text: &str) -> Secret {
        Secret::of_file(self.path(), "accounts.main.smpp.password_file".into(), text.into())
    }
}

/// What is logged meanwhile.
fn logged(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panicked").extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, act);
    let octets = log.0.lock().expect("nobody panicked").clone();
    String::from_utf8(octets).expect("it is text")
}

#[test]
fn a_secret_is_never_printed() {
    for secret in [Secret::new("hunter2"), Mounted::new("hunter2").secret("hunter2")] {
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).expect("it is written"), "\"***\"");
    }
    assert_eq!(serde_json::from_str::<Secret>("\"x\"").expect("it is read").expose(), "x");
    for wrong in ["7", "{}", "{\"file\":\"hunter2\"}", "{\"hunter2\":1}"] {
        let error = serde_json::from_str::<Secret>(wrong).expect_err("it is no text").to_string();
        assert!(error.contains("a string") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_mounted_secret_that_was_exchanged_is_the_new_one_at_once_and_in_every_copy() {
    let mounted = Mounted::new("first\n");
    let secret = mounted.secret("first");
    let copy = secret.clone();
    assert_eq!(secret.now().expose(), "first");
    mounted.change("second\nnotes\n");
    assert_eq!((secret.now().expose(), copy.now().expose(), secret.expose()), ("second", "second", "first"));
    std::fs::write(mounted.path(), "in place, and longer").expect("it is written");
    assert_eq!(secret.now().expose(), "in place, and longer");
}

#[test]
fn a_secret_that_cannot_be_read_again_stays_what_it_was_and_that_is_said_once_with_its_setting_and_without_it() {
    let mounted = Mounted::new("first");
    let secret = mounted.secret("first");
    let said = logged(|| {
        for broken in ["", "\n", "a\0b"] {
            mounted.change(broken);
            assert_eq!(secret.now().expose(), "first", "{broken:?}");
        }
        std::fs::remove_file(mounted.path()).expect("it is there");
        assert_eq!((secret.now().expose(), secret.now().expose()), ("first", "first"));
        std::fs::create_dir(mounted.path()).expect("a folder");
        assert_eq!(secret.now().expose(), "first");
        std::fs::remove_dir(mounted.path()).expect("it is there");
    });
    assert_eq!(said.matches("WARN").count(), 1, "{said}");
    assert!(said.contains("accounts.main.smpp.password_file"), "{said}");
    let said = logged(|| {
        std::fs::write(mounted.path(), "second").expect("it is written");
        assert_eq!(secret.now().expose(), "second");
        std::fs::remove_file(mounted.path()).expect("it is there");
        assert_eq!(secret.now().expose(), "second");
    });
    assert_eq!(said.matches("WARN").count(), 1, "another time is another trouble: {said}");
    assert!(!said.contains("first") && !said.contains("\"second"), "{said}");
}
