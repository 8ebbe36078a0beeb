//! What a machine boots from: busybox, what loads AppArmor profiles, the modules of its disk, and a script for the cases.

use std::path::{Path, PathBuf};

use stepwell_test_support::cmd::tool;

use super::packages::{Kernel, unpacked};
use super::{CASES, Case, quietly};
use crate::root::{Root, copy};
use crate::site::{self, EPOCH};

/// Modules that a disk needs, where the kernel does not have them built in; in the order in which they are loaded.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
];

/// The user of the builds.
const USER: u32 = 1000;

/// Makes the initramfs for a kernel in `dir`.
pub fn make(dir: &Path, kernel: &Kernel, program: &Path) -> Result<PathBuf, String> {
    let root = Root::new(&dir.join("initramfs"));
    let apparmor = unpacked("apparmor")?;
    for library in ["libapparmor1", "libcap-ng0"] {
        add_libraries(&root, &unpacked(library)?);
    }
    root.libraries_of(program);
    root.program_from(&apparmor.join("sbin/apparmor_parser"));
    root.program("setpriv");
    for name in [
        "etc/apparmor/parser.conf",
        "usr/share/apparmor-features/features",
    ] {
        copy(&apparmor.join(name), &root.path().join(name));
    }
    add_modules(&root, kernel);
    for Case {
        profile: (name, rules),
        ..
    } in CASES
    {
        let flags = "flags=(attach_disconnected,mediate_deleted)";
        root.file(
            &format!("etc/profiles/{name}"),
            format!("profile {name} {flags} {{\n  {rules}\n}}\n"),
        );
    }
    root.file(
        "etc/passwd",
        format!("root:x:0:0::/:/bin/sh\nbuilder:x:{USER}:{USER}::/:/bin/sh\n"),
    );
    root.file("init", script());
    let mut mode = tool("chmod");
    quietly(mode.arg("a+rx").arg(root.path().join("init")));
    let file = dir.join("initramfs.cpio.gz");
    let pack =
        "cd \"$1\" && find . | busybox cpio -o -H newc -R 0:0 2>/dev/null | gzip -1 > \"$2\"";
    quietly(
        tool("sh")
            .args(["-c", pack, "sh"])
            .arg(root.path())
            .arg(&file),
    );
    Ok(file)
}

fn add_libraries(root: &Root, package: &Path) {
    let dir = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    for entry in std::fs::read_dir(package.join(&dir))
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_string_lossy().contains(".so.") {
            let to = root
                .path()
                .join(dir.trim_start_matches("usr/"))
                .join(entry.file_name());
            copy(&entry.path(), &to);
        }
    }
}

fn add_modules(root: &Root, kernel: &Kernel) {
    std::fs::create_dir_all(root.path().join("modules")).expect("a directory");
    for module in MODULES {
        let name = module.rsplit('/').next().unwrap_or(module);
        let to = root.path().join(format!("modules/{name}.ko"));
        let plain = kernel.modules.join(format!("{module}.ko"));
        let packed = kernel.modules.join(format!("{module}.ko.xz"));
        if plain.is_file() {
            copy(&plain, &to);
        } else if packed.is_file() {
            let mut unpack = tool("sh");
            unpack.args(["-c", "busybox xz -dc \"$1\" > \"$2\"", "sh"]);
            quietly(unpack.arg(packed).arg(to));
        }
    }
}

/// Sets the machine up, carries out the cases, goes off.
fn script() -> String {
    let modules: String = MODULES
        .iter()
        .filter_map(|m| m.rsplit('/').next())
        .map(|name| format!("[ -f /modules/{name}.ko ] && insmod /modules/{name}.ko\n"))
        .collect();
    let cases: String = CASES.iter().map(case).collect();
    format!(
        "#!/bin/sh
export PATH=/bin SOURCE_DATE_EPOCH={EPOCH} HOME=/
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts /dev/shm /disk
mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm; mount -t securityfs sec /sys/kernel/security
chmod 755 /
{modules}
i=0; while [ ! -b /dev/vda ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done
mount -t ext4 /dev/vda /disk
echo \"machine: $(uname -r), $(cat /sys/kernel/security/lsm)\"
{cases}
umount /disk; echo machine: done; sync; poweroff -f
"
    )
}

/// One case: its profile is loaded, the denial is shown, the build is done, and what came of them is on the disk.
fn case(case: &Case) -> String {
    let (profile, _) = case.profile;
    let work = format!("/disk/out/{}", case.name);
    let site = format!("/disk/{}", super::disk::name(case.workload));
    let build = site::build(Path::new(&site), Path::new(&work), &[]).join(" ");
    let (control, _) = case.control;
    let as_user = |command: &str| {
        let user = format!(
            "--reuid {USER} --regid {USER} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
        );
        // A shell that the profile is not for yet asks for it, and executes.
        let confined = format!(
            "echo \"exec {profile}\" > /proc/self/attr/apparmor/exec; exec /bin/sh -c \"{command}\""
        );
        // With its path: busybox's shell would take its own.
        format!("/bin/setpriv {user} /bin/sh -c '{confined}'")
    };
    format!(
        "echo \"machine: {name}\"
apparmor_parser -r /etc/profiles/{profile} 2> {work}/parser || echo 'machine: the profile was refused'
{before}
{control} > {work}/control 2>&1; echo $? > {work}/control.exit
{confined} > {work}/profile 2>&1
{build} > {work}/log 2>&1; echo $? > {work}/exit
echo \"machine: {name} $(cat {work}/exit) $(cat /proc/uptime)\"
",
        name = case.name,
        before = case.before,
        control = as_user(control),
        confined = as_user("cat /proc/self/attr/apparmor/current"),
        build = as_user(&build),
    )
}
