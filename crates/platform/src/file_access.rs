//! Permissions of files: the program's own files are accessible to its user only, at any umask, and files with
//! credentials that other users may read are refused. Does not know the content of the files.

use std::{
    fs::{self, Metadata, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, StatVfsMountFlags},
    process::{getegid, geteuid, getgroups, umask},
};

/// Folders in which container engines mount secrets.
const SECRET_MOUNTS: [&str; 2] = ["/run/secrets/", "/var/run/secrets/"];

/// Type number of tmpfs, the file system in memory in which Kubernetes mounts its secrets.
const TMPFS: i128 = 0x0102_1994;

/// Makes all files and folders that this process creates from now on accessible to its user only.
pub fn restrict_new_files() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Reads a file with credentials. The error states the problem and the remedy, and contains nothing of the text.
pub fn read_secret(path: &Path) -> Result<String, String> {
    check_secret(path)?;
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Checks that only this process's user and groups may read a file with credentials.
pub fn check_secret(path: &Path) -> Result<(), String> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?;
    // A pipe or a terminal has no content that others could read.
    if !found.is_file() {
        return Ok(());
    }
    let name = path.display();
    let mode = found.mode() & 0o777;
    if mode & 0o007 != 0 && !is_secret_mount(path) {
        return Err(format!(
            "every user of this machine may read it (mode {mode:04o}); run `chmod 600 {name}`"
        ));
    }
    if mode & 0o070 != 0 && mode & 0o007 == 0 && !is_our_group(&found) {
        return Err(format!(
            "users of group {} may read it (mode {mode:04o}), which is no group of this process; run `chmod 600 {name}`",
            found.gid()
        ));
    }
    Ok(())
}

/// Returns whether the path is in a read-only mount of a container's secrets. No other user is in the container, and the
/// operator cannot choose the mode.
fn is_secret_mount(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let is_read_only = rustix::fs::statvfs(&path)
        .is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    let is_in_memory =
        || rustix::fs::statfs(&path).is_ok_and(|found| i128::from(found.f_type) == TMPFS);
    let is_named = || SECRET_MOUNTS.iter().any(|mount| path.starts_with(mount));
    is_read_only && (is_in_memory() || is_named())
}

fn is_our_group(found: &Metadata) -> bool {
    let is_it = |gid: rustix::process::Gid| gid.as_raw() == found.gid();
    is_it(getegid()) || getgroups().unwrap_or_default().into_iter().any(is_it)
}

/// Removes the access of other users to one of our files, left by an earlier release or a copy.
pub fn repair(path: &Path) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    let kept = match found.is_dir() {
        true => 0o700,
        false => 0o600,
    };
    if !(found.is_file() || found.is_dir()) || found.mode() & 0o077 == 0 {
        return;
    }
    let file = path.display();
    let is_ours = found.uid() == geteuid().as_raw();
    if is_ours && fs::set_permissions(path, Permissions::from_mode(kept)).is_ok() {
        tracing::warn!(event = "files.restricted", %file, "other users had access to message data; the sidecar restricted {file} to its owner");
        return;
    }
    expose(path, &format!("chmod {kept:o} {file}"));
}

/// Checks that only this process's user and group may access a folder with data. The error states the remedy. The folder
/// is not changed, because it may hold files of other programs, as `/tmp` does.
pub(crate) fn check_folder(path: &Path) -> Result<(), String> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    if !found.is_dir() || found.mode() & 0o027 == 0 {
        return Ok(());
    }
    let (folder, mode) = (path.display(), found.mode() & 0o7777);
    Err(format!(
        "{folder}: other users of this machine may look into this folder or write to it (mode {mode:04o}), and it is for people's messages; run `chmod 700 {folder}`, or name a new folder below it, which is then created with that mode"
    ))
}

fn expose(path: &Path, command: &str) {
    let file = path.display();
    tracing::warn!(event = "files.exposed", %file, "other users have access to {file}, which contains message data; run `{command}`");
}

/// Returns the folder of a `file://` URL.
pub fn folder(url: &str) -> Option<PathBuf> {
    url.strip_prefix("file://").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_others_may_read_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.toml");
        fs::write(&path, "hush").unwrap();
        for (mode, is_good) in [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o440, true),
            (0o644, false),
            (0o604, false),
            (0o666, false),
            (0o601, false),
            (0o444, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read_secret(&path);
            assert_eq!(read.is_ok(), is_good, "{mode:o}");
            let Err(problem) = read else { continue };
            assert!(problem.contains(&format!("`chmod 600 {}`", path.display())), "{problem}");
        }
        assert!(check_secret(Path::new("/dev/null")).is_ok(), "no regular file");
        // A group that is not ours; only root can create such a file.
        let other = Some(4_242_424);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        if std::os::unix::fs::chown(&path, None, other).is_ok() {
            assert!(check_secret(&path).unwrap_err().contains("group 4242424"));
        }
    }

    #[test]
    fn folders_that_others_may_look_into_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, is_good) in
            [(0o700, true), (0o750, true), (0o755, false), (0o711, false), (0o770, false)]
        {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let checked = check_folder(folder.path());
            assert_eq!(checked.is_ok(), is_good, "{mode:o}");
            let command = format!("run `chmod 700 {}`", folder.path().display());
            assert!(checked.err().is_none_or(|problem| problem.contains(&command)), "{mode:o}");
        }
        assert_eq!(check_folder(&folder.path().join("absent")), Ok(()), "it will be ours");
    }

    #[test]
    fn files_that_others_could_read_are_repaired() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let (file, inside) = (folder.path().join("edge.db"), folder.path().join("spool"));
        fs::write(&file, "").unwrap();
        fs::create_dir(&inside).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&inside, Permissions::from_mode(0o755)).unwrap();
        repair(&file);
        repair(&inside);
        repair(&folder.path().join("absent"));
        assert_eq!((mode(&file), mode(&inside)), (0o600, 0o700));
        // A symbolic link may lead to a file that is not ours.
        let link = folder.path().join("link");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        repair(&link);
        assert_eq!(mode(&file), 0o644);
    }
}
