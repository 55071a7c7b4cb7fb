use super::*;

const SCORES: Written = Written { what: "scores", is: |path| first_line(path, &["image", "prompt"]) };

const OURS: &[&str] = &["#-#.png", "grid.png", "images/*/#-#.png", "encoded/**"];

fn place(folder: &Path) -> Place<'_> {
    Place::folder(folder, "--out", OURS)
}

#[test]
fn what_a_command_wrote_is_replaced_when_asked_and_nothing_else_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let put = |name: &str| {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "x").unwrap();
    };
    let (no, yes) = (OverwriteFlag { overwrite: false }, OverwriteFlag { overwrite: true });
    let check = |overwrite| place(path).claim(overwrite).map(drop);
    check(no).unwrap();
    for name in ["0000-12.png", "grid.png", "images/a b/0001-0.png", "encoded/deep/er.bin"] {
        put(name);
    }
    let message = check(no).unwrap_err().to_string();
    assert!(message.ends_with("already exists; choose another --out or --overwrite"), "{message}");
    let message = check(yes).unwrap_err().to_string();
    assert!(
        message.contains("but nothing that says that this program wrote them; remove the folder"),
        "{message}"
    );
    place(path).done().unwrap();
    check(yes).unwrap();
    for name in ["notes.txt", "0000-x.png", "-1.png", "images/0001-0.png", "images/a/b/0001-0.png"] {
        put(name);
        let message = check(yes).unwrap_err().to_string();
        assert!(message.contains(&format!("such as {name}; choose another --out")), "{message}");
        place(path).clear().unwrap();
        assert_eq!(place(path).files(), [Path::new(name)]);
        fs::remove_file(path.join(name)).unwrap();
    }
}

#[test]
fn beside_a_marker_what_others_put_there_stays_and_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let claim = |overwrite| {
        let place = place(path).marked(&["grid.png"]).beside_others(&["whole"]);
        place.claim(OverwriteFlag { overwrite }).map(drop)
    };
    fs::write(path.join("notes.txt"), "mine").unwrap();
    let message = claim(true).unwrap_err().to_string();
    assert!(message.contains("such as notes.txt; choose another --out"), "{message}");
    fs::write(path.join("grid.png"), "x").unwrap();
    let message = claim(false).unwrap_err().to_string();
    assert!(message.ends_with("already exists; choose another --out or --overwrite"), "{message}");
    claim(true).unwrap();
    fs::create_dir(path.join("whole")).unwrap();
    fs::write(path.join("whole/mine"), "mine").unwrap();
    let message = claim(true).unwrap_err().to_string();
    assert!(message.contains("such as whole/mine; choose another --out"), "{message}");
    fs::remove_file(path.join("whole/mine")).unwrap();
    place(path).clear().unwrap();
    assert_eq!(place(path).files(), [Path::new("notes.txt")]);
}

#[test]
fn a_file_takes_the_place_of_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scores.csv");
    let check = |overwrite| Place::file(&file, "--out", SCORES).claim(OverwriteFlag { overwrite }).map(drop);
    assert!(check(false).is_ok());
    fs::write(&file, "mine").unwrap();
    for overwrite in [false, true] {
        let message = check(overwrite).unwrap_err().to_string();
        assert!(message.ends_with("is something else than scores; choose another --out"), "{message}");
    }
    fs::write(&file, "image,prompt\n").unwrap();
    assert!(
        check(false)
            .unwrap_err()
            .to_string()
            .ends_with("already exists; choose another --out or --overwrite")
    );
    assert!(check(true).is_ok());
    let below = file.join("out.csv");
    assert!(Place::file(&below, "--out", SCORES).claim(OverwriteFlag { overwrite: true }).is_err());
}

#[test]
fn what_a_command_reads_is_spared_whatever_way_leads_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    for name in ["images/a/0001-0.png", "notes.txt", "encoded/deep/x"] {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "x").unwrap();
    }
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("inner")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&path, folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink(path.join("encoded"), elsewhere.join("inner/parts")).unwrap();
    }
    let spare = |input: &str| place(&path).spare(&[folder.path().join(input)]);
    let mut lost = vec!["out", "out/encoded", "out/images/a/0001-0.png", "out/../out/encoded/deep"];
    lost.extend(cfg!(unix).then_some(["link", "link/encoded", "elsewhere"]).into_iter().flatten());
    for input in lost {
        let message = spare(input).unwrap_err().to_string();
        assert!(message.contains(input) && message.contains("is read by this command"), "{message}");
    }
    for input in ["out/notes.txt", "nowhere", "out/nowhere"] {
        spare(input).unwrap();
    }
    fs::write(folder.path().join("plan.json"), "{}").unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("grid.png"), "x").unwrap();
    assert!(place(&model).spare(&[folder.path().to_owned()]).is_err(), "a run and its model");
    assert!(place(&path).spare(&[folder.path().to_owned()]).is_ok());
}
