//! What is done, in which order, so that a step's program runs where it belongs: a list of typed operations.
//!
//! Pure: nothing here touches the system.  [`super::init`] carries a plan out with one exhaustive match.
//! A plan is data (JSON), so that it can be read, compared and snapshot-tested.

use serde::{Deserialize, Serialize};
use stepwell_model::mount::Limit;
use stepwell_model::op::Network;
use stepwell_sys::capability::{self, Capabilities};
use stepwell_sys::mount::Limits;
use stepwell_sys::probe::Facts;
use stepwell_sys::seccomp::{Filter, OtherAbi, Rule};

use super::narrow;
use super::tier::TierChoice;
use super::types::{Credentials, Ids, Tier};
use super::walls::{refused, walls};
use super::world::{self, Entry, FileSystem, KernelWorld};

/// The operations, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is done.
    pub steps: Vec<SetupStep>,
}

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceKind {
    /// Users, groups, capabilities.
    User,
    /// Processes.
    Pid,
    /// System V IPC.
    Ipc,
    /// Host name.
    Uts,
    /// Network.
    Network,
    /// Mounts.
    Mount,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum SetupStep {
    /// This process is killed when the one that made it ends.
    DieWithParent,
    /// Gets new namespaces.
    NewNamespaces {
        /// Which.
        kinds: Vec<NamespaceKind>,
    },
    /// Maps id 0 of the new user namespace to the ids this process had.
    MapSingleId {
        /// User outside.
        uid: u32,
        /// Group outside.
        gid: u32,
    },
    /// Waits until the builder has mapped all ids, for which only it has the privilege.
    AwaitIdMap,
    /// Goes on as pid 1 of the new pid namespace; what was before only waits for it, and cannot be traced.
    EnterPidNamespace,
    /// Becomes the parent of all orphans of the step, so that none is out of reach.
    BecomeSubreaper,
    /// Names the host.
    HostName {
        /// The name.
        name: String,
    },
    /// Switches the loopback interface on.
    LoopbackUp,
    /// Goes on as the step's own process; what was before holds it, reaps orphans, ends
    /// with it, and cannot be traced.
    StartStep,
    /// Starts a session, without a terminal.
    NewSession,
    /// Standard input becomes `/dev/null`; the control socket moves away from it.
    NullInput,
    /// Umask 0022, default signals, a soft limit of open files.
    ProcessDefaults {
        /// Soft limit of open files.
        open_files: u64,
    },
    /// Limits of the step's processes.
    Limits {
        /// Which, and how much.
        limits: Vec<Limit>,
    },
    /// Attaches another mount of the tree to its place, in the step's own mount namespace; what follows is attached in it.
    AttachTree {
        /// Absolute path of the tree, outside.
        path: String,
    },
    /// Attaches a file system in the tree.
    Attach {
        /// Which.
        what: FileSystem,
        /// Absolute path in the step, without links.
        at: String,
        /// What may not be done through it.
        limits: Limits,
        /// Whether it is left out where there is nothing at its place, or nothing of it.
        if_there: bool,
    },
    /// Makes an entry in a directory that was made for the step.
    Make {
        /// What.
        entry: Entry,
        /// Absolute path in the step, without links.
        at: String,
    },
    /// From here on no user namespace can be made below the step's own, whose `/proc` stands in the tree.
    NoUserNamespaces,
    /// The tree becomes the root.
    EnterRoot,
    /// The tree becomes the root of the step's mount namespace, and nothing lies above it.
    TakeOverRoot,
    /// Changes into the directory; it is made where it is missing.
    WorkingDirectory {
        /// Absolute path in the step.
        path: String,
    },
    /// Landlock: files beneath the tree only; signals and abstract sockets of the step only.
    ConfineBeneathRoot,
    /// Programs executed from here on gain no privileges.
    NoNewPrivileges,
    /// Of the capabilities only these remain for what is executed.
    LimitCapabilities {
        /// As bits, by the kernel's numbers.
        keep: u64,
        /// Whether `no_new_privs` is set.
        no_new_privs: bool,
    },
    /// Installs the filter and hands its notification descriptor to the supervisor.
    Supervise {
        /// The filter.
        filter: Filter,
    },
    /// Waits until the tracer has this process.
    AwaitTracer,
    /// Takes on the user's ids.
    BecomeUser(Credentials),
    /// Executes the step's program.
    Execute {
        /// Path in the step.
        program: String,
        /// Arguments, the name first.
        args: Vec<String>,
        /// `NAME=value`.
        env: Vec<String>,
    },
}

/// What is to run: everything looked up already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepProcess {
    /// Path in the step.
    pub program: String,
    /// Arguments, the name first.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute directory.
    pub cwd: String,
    /// The ids.
    pub credentials: Credentials,
    /// Name of the host.
    pub hostname: String,
    /// What of the network may be reached.
    pub network: Network,
    /// Limits of its processes.
    pub limits: Vec<Limit>,
    /// Processes of the builder that the step must not signal where neither a pid namespace nor Landlock keeps
    /// it from that.
    pub protected: Vec<u32>,
    /// What the kernel makes of its `/proc`, `/dev` and `/sys`; none where the supervisor does.
    pub world: Option<KernelWorld>,
}

/// Soft limit of open files: what docker's daemon gives to containers of today.  Some programs go through
/// all numbers up to the limit, so no more than that.
const OPEN_FILES: u64 = 1_048_576;

/// Lists what is to be done for `process`.  `notify` are the system calls that the supervisor wants to be asked
/// about.
pub fn plan(process: &StepProcess, choice: &TierChoice, facts: &Facts, notify: &[Rule]) -> Plan {
    let shape = Shape::new(process, choice, facts);
    let mut steps = namespaces(process, choice, facts, &shape);
    steps.extend(process.world.iter().flat_map(world::steps));
    steps.extend([
        SetupStep::StartStep,
        SetupStep::NewSession,
        SetupStep::NullInput,
    ]);
    steps.push(SetupStep::ProcessDefaults {
        open_files: OPEN_FILES,
    });
    if choice.tier != Tier::Mediated {
        steps.extend(limits(process));
        // There the supervisor knows root and directory, and the kernel's are of no account.
        steps.push(if shape.own_root {
            SetupStep::TakeOverRoot
        } else {
            SetupStep::EnterRoot
        });
        steps.push(SetupStep::WorkingDirectory {
            path: process.cwd.clone(),
        });
    }
    steps.extend(confinement(process, choice, facts, &shape, notify));
    steps.push(SetupStep::Execute {
        program: process.program.clone(),
        args: process.args.clone(),
        env: process.env.clone(),
    });
    Plan { steps }
}

fn limits(process: &StepProcess) -> Option<SetupStep> {
    let limits = process.limits.clone();
    (!limits.is_empty()).then_some(SetupStep::Limits { limits })
}

/// Returns whether steps get a pid namespace.
pub fn has_pid_namespace(choice: &TierChoice, facts: &Facts) -> bool {
    match choice.tier {
        Tier::Userns => true,
        Tier::Chroot => facts.pid_namespace.works(),
        // It takes nothing that has to be granted, and is the same everywhere.
        Tier::Mediated => false,
    }
}

/// What the facts make of the tier.
pub(super) struct Shape {
    pub pid_namespace: bool,
    pub network_namespace: bool,
    pub landlock: bool,
    pub own_root: bool,
    no_new_privs: bool,
    /// Whether every process is traced.
    pub traced: bool,
}

impl Shape {
    fn new(process: &StepProcess, choice: &TierChoice, facts: &Facts) -> Self {
        let pid_namespace = has_pid_namespace(choice, facts);
        // A user namespace gives CAP_SYS_ADMIN in it, which installs filters without giving up privileges.
        let privileged = choice.tier == Tier::Userns || facts.listener_with_privileges.works();
        let network = if choice.tier == Tier::Userns {
            &facts.user_namespace_network
        } else {
            &facts.network_namespace
        };
        let network_namespace =
            process.network == Network::None && network.works() && choice.tier != Tier::Mediated;
        Self {
            pid_namespace,
            network_namespace,
            landlock: facts.landlock_confines.works(),
            own_root: process.world.as_ref().is_some_and(|world| world.own_root),
            traced: choice.tier == Tier::Mediated,
            // Of real owners the kernel would take set-user-ID bits seriously, and the ids of processes are emulated.
            no_new_privs: facts.no_new_privs
                || !privileged
                || choice.tier == Tier::Mediated
                || choice.ids == Ids::RealOwners,
        }
    }
}

fn namespaces(
    process: &StepProcess,
    choice: &TierChoice,
    facts: &Facts,
    shape: &Shape,
) -> Vec<SetupStep> {
    let mut steps = Vec::new();
    let mut kinds = Vec::new();
    if choice.tier == Tier::Userns {
        kinds.push(NamespaceKind::User);
    }
    if shape.pid_namespace {
        kinds.extend([NamespaceKind::Pid, NamespaceKind::Ipc, NamespaceKind::Uts]);
    }
    if shape.network_namespace {
        kinds.push(NamespaceKind::Network);
    }
    if process.world.is_some() {
        kinds.push(NamespaceKind::Mount);
    }
    if !kinds.is_empty() {
        steps.push(SetupStep::NewNamespaces { kinds });
    }
    match (choice.tier, choice.ids) {
        (Tier::Userns, Ids::Emulated) => steps.push(SetupStep::MapSingleId {
            uid: facts.uid,
            gid: facts.gid,
        }),
        (Tier::Userns, Ids::Real) => steps.push(SetupStep::AwaitIdMap),
        (Tier::Userns, Ids::RealOwners) | (Tier::Chroot | Tier::Mediated, _) => {}
    }
    if shape.pid_namespace {
        steps.extend([
            SetupStep::DieWithParent,
            SetupStep::EnterPidNamespace,
            SetupStep::DieWithParent,
        ]);
        steps.push(SetupStep::HostName {
            name: process.hostname.clone(),
        });
    } else {
        steps.push(SetupStep::BecomeSubreaper);
    }
    if shape.network_namespace {
        steps.push(SetupStep::LoopbackUp);
    }
    steps
}

fn confinement(
    process: &StepProcess,
    choice: &TierChoice,
    facts: &Facts,
    shape: &Shape,
    notify: &[Rule],
) -> Vec<SetupStep> {
    let mut steps = Vec::new();
    if shape.no_new_privs {
        steps.push(SetupStep::NoNewPrivileges);
    }
    if shape.landlock {
        steps.push(SetupStep::ConfineBeneathRoot);
    }
    steps.push(SetupStep::LimitCapabilities {
        keep: match choice.tier {
            Tier::Mediated => 0,
            // With it a write to a file of which a user is only emulated would leave set-user-id bits, which it does in no
            // user namespace either; of files on the disk all have the step's own group where owners are emulated, and where they
            // are real the supervisor changes modes in its stead.
            Tier::Chroot if choice.ids != Ids::Real => {
                (capability::STEP - Capabilities::FSETID).bits()
            }
            // Who has it leaves a chroot, but nobody leaves the root of a mount namespace.
            _ if shape.own_root => (capability::STEP | Capabilities::SYS_CHROOT).bits(),
            _ => capability::STEP.bits(),
        },
        no_new_privs: shape.no_new_privs,
    });
    let walls = walls(process, facts, shape);
    let can_be_walled = walls.is_empty() || narrow::IS_WHOLE;
    let other_abi = if can_be_walled && (choice.tier != Tier::Mediated || narrow::IS_WHOLE) {
        OtherAbi::Allow
    } else {
        OtherAbi::Deny
    };
    let rules = walls
        .into_iter()
        .chain(refused())
        .chain(notify.iter().cloned())
        .collect();
    let rules = narrow::rules(rules);
    steps.push(SetupStep::Supervise {
        filter: Filter { rules, other_abi },
    });
    if choice.tier == Tier::Mediated {
        // The listener was handed over by a thread, which a limit of processes would not have let begin.
        steps.extend(limits(process));
        steps.push(SetupStep::AwaitTracer);
    }
    if choice.ids == Ids::Real {
        // For root as well: the builder's supplementary groups are not the step's.
        steps.push(SetupStep::BecomeUser(process.credentials.clone()));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tier::choose_tier;
    use crate::run::tier::tests::{
        docker_default, ordinary_user, restricted, root_with_user_namespaces,
        user_with_subordinate_ids,
    };
    use crate::run::types::World;
    use stepwell_model::request::Isolation;
    use stepwell_sys::probe::Attempt;
    use stepwell_sys::seccomp::Action;

    fn process(network: Network) -> StepProcess {
        StepProcess {
            program: "/bin/sh".to_owned(),
            args: ["sh", "-c", "make"].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/src".to_owned(),
            credentials: Credentials {
                uid: 1000,
                gid: 1000,
                groups: vec![4],
            },
            hostname: "box".to_owned(),
            network,
            limits: Vec::new(),
            protected: vec![77],
            world: None,
        }
    }

    fn planned(facts: &Facts, isolation: Isolation, network: Network) -> Plan {
        let choice = choose_tier(isolation, facts).unwrap();
        let notify = [Rule::new(
            1,
            "a-call",
            Action::Notify,
            "the supervisor wants to know",
        )];
        plan(&process(network), &choice, facts, &notify)
    }

    #[test]
    fn an_ordinary_users_plan() {
        insta::assert_json_snapshot!(planned(&ordinary_user(), Isolation::Auto, Network::None));
    }

    #[test]
    fn roots_plan_with_user_namespaces() {
        insta::assert_json_snapshot!(planned(
            &root_with_user_namespaces(),
            Isolation::Auto,
            Network::Default
        ));
    }

    #[test]
    fn a_plan_with_file_systems_of_the_kernels() {
        let facts = user_with_subordinate_ids();
        let choice = choose_tier(Isolation::Auto, &facts).unwrap();
        assert_eq!(choice.world, World::Kernel);
        let process = StepProcess {
            world: Some(KernelWorld {
                tree: "/store/tree".to_owned(),
                own_root: true,
                shm_size: 64,
                in_memory: vec![world::InMemory {
                    path: "/t".to_owned(),
                    mode: 0o1777,
                    size: Some(4096),
                }],
            }),
            ..process(Network::Default)
        };
        insta::assert_json_snapshot!(plan(&process, &choice, &facts, &[]));
    }

    #[test]
    fn who_is_root_of_the_machine_or_has_no_ids_gets_no_file_systems_of_the_kernels() {
        for facts in [
            ordinary_user(),
            root_with_user_namespaces(),
            docker_default(),
            restricted(),
        ] {
            let choice = choose_tier(Isolation::Auto, &facts).unwrap();
            assert_eq!(choice.world, World::Supervisor);
        }
    }

    #[test]
    fn a_plan_in_a_container_without_user_namespaces() {
        insta::assert_json_snapshot!(planned(
            &docker_default(),
            Isolation::Auto,
            Network::Default
        ));
    }

    #[test]
    fn a_plan_where_nothing_is_allowed() {
        insta::assert_json_snapshot!(planned(&restricted(), Isolation::Auto, Network::Default));
    }

    #[test]
    fn no_network_is_no_network_without_namespaces_too() {
        let plan = planned(&docker_default(), Isolation::Auto, Network::None);
        assert!(!plan.steps.contains(&SetupStep::LoopbackUp));
        let text = serde_json::to_string(&plan).unwrap();
        assert!(
            text.contains(r#""name":"socket","action":{"errno":97}"#)
                && (text.contains(r#""other_abi":"deny""#)
                    || text.contains(r#""name":"socketcall","action":{"errno":97}"#)),
            "{text}"
        );
    }

    #[test]
    fn limits_are_set_while_the_process_may_still_raise_them() {
        let facts = ordinary_user();
        let choice = choose_tier(Isolation::Auto, &facts).unwrap();
        let limits = vec![Limit {
            name: "nofile".to_owned(),
            soft: Some(64),
            hard: None,
        }];
        let process = StepProcess {
            limits: limits.clone(),
            ..process(Network::Default)
        };
        let steps = plan(&process, &choice, &facts, &[]).steps;
        let at = |wanted: &dyn Fn(&SetupStep) -> bool| steps.iter().position(wanted);
        let limited = at(&|s| {
            *s == SetupStep::Limits {
                limits: limits.clone(),
            }
        });
        let weakened = at(&|s| matches!(s, SetupStep::LimitCapabilities { .. }));
        assert!(limited.is_some() && limited < weakened);
    }

    #[test]
    fn set_user_id_bits_of_real_owners_are_not_the_kernels_affair() {
        let facts = Facts {
            listener_with_privileges: Attempt::Works,
            ..docker_default()
        };
        let plan = planned(&facts, Isolation::Auto, Network::Default);
        assert!(plan.steps.contains(&SetupStep::NoNewPrivileges));
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = planned(&docker_default(), Isolation::Auto, Network::Default);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn old_kernels_get_walls_in_the_filter_instead() {
        let mut facts = docker_default();
        facts.landlock = Some(3);
        let filter = |plan: Plan| {
            plan.steps.into_iter().find_map(|s| {
                if let SetupStep::Supervise { filter } = s {
                    Some(filter)
                } else {
                    None
                }
            })
        };
        let with = filter(planned(
            &docker_default(),
            Isolation::Chroot,
            Network::Default,
        ))
        .unwrap();
        let without = filter(planned(&facts, Isolation::Chroot, Network::Default)).unwrap();
        // Nothing but what is refused everywhere, and what the supervisor asked for.
        assert_eq!(
            (with.rules.len(), with.other_abi),
            (refused().len() + 1, OtherAbi::Allow)
        );
        let kills: Vec<u64> = without
            .rules
            .iter()
            .filter(|r| r.name == "kill")
            .map(|r| r.when[0].value as u32 as i32 as u64)
            .collect();
        assert_eq!(kills, [u64::MAX, 77, (-77_i64) as u64]);
        let walled = without
            .rules
            .iter()
            .all(|r| r.action == Action::Notify || !r.narrow.is_empty());
        assert!(without.other_abi == OtherAbi::Deny || walled);
    }
}
