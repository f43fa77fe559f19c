//! A list that is a folder of several files, through the command line.

use super::fixture::{Place, Provider, list};

#[test]
fn a_folder_is_one_list_and_its_faults_name_the_file() {
    let provider = Provider::start();
    let place = Place::new(provider.port(), 1_000);
    std::fs::create_dir(place.path("lists")).expect("a folder");
    place.write("lists/1.csv", list(3));
    let more: String =
        list(6).lines().enumerate().filter(|(n, _)| !(1..=3).contains(n)).map(|(_, line)| format!("{line}\n")).collect();
    let more = zstd::encode_all(format!("{more}nobody,x\n").as_bytes(), 1).expect("zstd");
    place.write("lists/2.csv.zst", more);
    let send = |more: &[&'static str]| {
        let send = ["send", "--recipients", "lists", "--template", "Hi", "--account", "main", "--json"];
        place.run(&[&send[..], more].concat())
    };
    let plan = send(&["--dry-run"]).ended(0).json();
    assert_eq!(plan["records"], 7, "{plan}");
    assert_eq!(provider.messages(), 0);

    // What a person saw is what is sent.
    place.write("lists/3.csv", list(1));
    let said = send(&[]).ended(2);
    assert!(said.out.contains("SF-1007") && said.out.contains("3.csv was added"), "{said:?}");
    std::fs::remove_file(place.path("lists/3.csv")).expect("removed");

    let report = send(&[]).ended(0).json();
    assert_eq!(provider.messages(), 6, "{report}");
    let batch = report["batch"]["batch_id"].as_str().expect("an id");
    let rejected: Vec<_> = place.recipients(batch).into_iter().filter(|row| row["outcome"] == "rejected").collect();
    assert!(rejected.len() == 1 && rejected[0].to_string().contains("2.csv.zst: "), "{rejected:?}");
}

#[test]
fn a_bucket_that_is_not_configured_is_refused() {
    let place = Place::new(1, 1);
    for (list, code, words) in [
        ("s3://lists/a.csv", "SF-1010", "object_stores"),
        ("http://lists/a.csv", "SF-6002", "scheme"),
        ("upload:../smsfleet.toml", "SF-6002", "SHA-256"),
    ] {
        let said = place.run(&["send", "--recipients", list, "--template", "Hi", "--account", "main"]).ended(2);
        assert!(said.err.contains(code) && said.err.contains(words), "{said:?}");
    }
}
