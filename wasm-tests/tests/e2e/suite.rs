//! Runs scenarios: on which Envoys, on a stack shared with others or on one of their own, and what is checked after all
//! of them. Knows no scenario.

#![expect(clippy::print_stderr, reason = "results of tests")]

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use twilio_edge_wasm_tests::envoy::{Version, is_brief, is_native};
use twilio_edge_wasm_tests::stack::{Bench, Plan, SidecarPlan, Stack};

/// Longer than any scenario takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A story with assertions.
pub(crate) type Story = fn(&Stack) -> Pin<Box<dyn Future<Output = Result<()>> + '_>>;

/// A story, and where it runs.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// The function's name.
    pub(crate) name: &'static str,
    /// Assertions of the scenario.
    pub(crate) story: Story,
    /// Environment of the scenario.
    pub(crate) setting: Setting,
    /// The scenario is about the wasm filter alone: the reason. The native module is not tested with it.
    pub(crate) wasm_only: Option<&'static str>,
}

impl Scenario {
    /// Reports whether the scenario is one of the sidecar, or of decisions that both forms of the filter make with the same code.
    fn is_the_same(&self) -> bool {
        matches!(self.setting, Setting::Newest(_) | Setting::Alone(_))
    }

    /// Marks a scenario that is about the wasm filter alone.
    pub(crate) fn wasm_only(self, reason: &'static str) -> Self {
        Self { wasm_only: Some(reason), ..self }
    }
}

/// Results of the parts of a series, by name.
pub(crate) type Findings = BTreeMap<String, Result<()>>;

type SeriesStory = Arc<
    dyn for<'a> Fn(&'a Stack) -> Pin<Box<dyn Future<Output = Result<Findings>> + 'a>> + Send + Sync,
>;

/// A story with many parts on a separate stack. It runs once, on the newest Envoy; each part is a test.
pub(crate) struct Series {
    name: String,
    plan: Plan,
    things: Vec<String>,
    story: SeriesStory,
}

impl Series {
    pub(crate) fn new<T>(name: String, plan: Plan, things: Vec<String>, story: T) -> Self
    where
        T: for<'a> Fn(&'a Stack) -> Pin<Box<dyn Future<Output = Result<Findings>> + 'a>>
            + Send
            + Sync
            + 'static,
    {
        Self { name, plan, things, story: Arc::new(story) }
    }
}

/// Environment of a scenario.
#[derive(Clone, Copy)]
pub(crate) enum Setting {
    /// On a stack shared with others, with separate MessageSids; on every Envoy.
    Shared,
    /// On a separate stack, on every Envoy.
    Own(Plan),
    /// On a separate stack, on the newest Envoy: a scenario of the sidecar, or of the filter's own logic.
    Newest(Plan),
    /// As [`Setting::Newest`], with the machine to itself.
    Alone(Plan),
}

/// Scenarios in one setting, by the names of their functions.
macro_rules! scenarios {
    ($setting:expr; $($name:ident),+ $(,)?) => {
        [$($crate::suite::Scenario {
            name: stringify!($name),
            story: |stack| Box::pin($name(stack)),
            setting: $setting,
            wasm_only: None,
        }),+]
    };
}
pub(crate) use scenarios;

/// Resources that scenarios share, started on first use.
struct Runner {
    runtime: Runtime,
    bench: OnceCell<Arc<Bench>>,
    shared: HashMap<Version, OnceCell<Stack>>,
    /// Held for reading by all, for writing by a scenario that runs alone.
    machine: RwLock<()>,
}

/// Runs the scenarios that the command line selects.
pub(crate) fn run(
    subjects: impl IntoIterator<Item = (&'static str, Vec<Scenario>)>,
    series: impl IntoIterator<Item = (&'static str, Vec<Series>)>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Scenarios wait more than they work.
    arguments.test_threads.get_or_insert(4);
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runner = Arc::new(Runner {
        runtime,
        bench: OnceCell::new(),
        shared: [Version::Newest, Version::Oldest].map(|version| (version, OnceCell::new())).into(),
        machine: RwLock::new(()),
    });
    let mut trials = Vec::new();
    let is_selected = selection();
    for (subject, scenarios) in subjects {
        let is_selected =
            |it: &Scenario| is_selected(it.setting) && !(is_brief() && it.is_the_same());
        for scenario in scenarios.into_iter().filter(is_selected) {
            let versions: &[Version] = match scenario.setting {
                _ if is_brief() => &[Version::Newest],
                Setting::Shared | Setting::Own(_) => &[Version::Newest, Version::Oldest],
                Setting::Newest(_) | Setting::Alone(_) => &[Version::Newest],
            };
            for &version in versions {
                let name = format!("{}/{subject}/{}", version.as_str(), scenario.name);
                if let Some(reason) = scenario.wasm_only.filter(|_| is_native()) {
                    eprintln!("not for the native module: {name}: {reason}");
                    continue;
                }
                let runner = runner.clone();
                trials.push(Trial::test(name, move || runner.play(scenario, version)));
            }
        }
    }
    for (subject, series) in series {
        if !is_selected(Setting::Shared) || is_brief() {
            break;
        }
        trials.extend(trials_of(subject, series, &runner));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let judged = runner.close();
    if let Err(error) = &judged {
        eprintln!("error: {error:#}");
    }
    if conclusion.has_failed() || judged.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Returns which scenarios run: all, those that need the machine to themselves, or the others. `setup/tests.py` runs the
/// first when no other test program runs.
fn selection() -> fn(Setting) -> bool {
    match std::env::var("TWILIO_EDGE_E2E_ALONE").as_deref() {
        Ok("only") => |setting| matches!(setting, Setting::Alone(_)),
        Ok("none") => |setting| !matches!(setting, Setting::Alone(_)),
        _ => |_| true,
    }
}

/// Returns a test for each part. The first parts of all series come first, so that threads do not wait for the same series.
fn trials_of(subject: &str, series: Vec<Series>, runner: &Arc<Runner>) -> Vec<Trial> {
    let version = Version::Newest;
    let mut rows = Vec::new();
    for Series { name, plan, things, story } in series {
        let outcome = Arc::new(OnceLock::new());
        for (row, thing) in things.into_iter().enumerate() {
            let (runner, story, outcome) = (runner.clone(), story.clone(), outcome.clone());
            let title = format!("{}/{subject}/{name}: {thing}", version.as_str());
            let trial = Trial::test(title, move || {
                let found = outcome.get_or_init(|| runner.find(&story, version, plan));
                let found = found.as_ref().map_err(Failed::from)?;
                found
                    .get(&thing)
                    .ok_or("the series has no result for it")?
                    .clone()
                    .map_err(Failed::from)
            });
            rows.push((row, trial));
        }
    }
    rows.sort_by_key(|(row, _)| *row);
    rows.into_iter().map(|(_, trial)| trial).collect()
}

/// [`Findings`] that several tests look at.
type SharedFindings = Result<BTreeMap<String, Result<(), String>>, String>;

impl Runner {
    fn find(&self, story: &SeriesStory, version: Version, plan: Plan) -> SharedFindings {
        let _turn = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        let found = self.on_own_stack(version, plan, |stack| story(stack));
        let found = found.map_err(|error| format!("{error:#}"))?.into_iter();
        let words = |found: Result<()>| found.map_err(|error| format!("{error:#}"));
        Ok(found.map(|(thing, found)| (thing, words(found))).collect())
    }

    fn play(&self, scenario: Scenario, version: Version) -> Result<(), Failed> {
        let turn = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        let outcome = match scenario.setting {
            Setting::Shared => self.on_shared_stack(scenario.story, version),
            Setting::Own(plan) | Setting::Newest(plan) => {
                self.on_own_stack(version, plan, scenario.story)
            }
            Setting::Alone(plan) => {
                drop(turn);
                let _alone = self.machine.write().unwrap_or_else(PoisonError::into_inner);
                self.on_own_stack(version, plan, scenario.story)
            }
        };
        // Without a backtrace, which would be that of the runner.
        outcome.map_err(|error| format!("{error:#}").into())
    }

    fn on_shared_stack(&self, story: Story, version: Version) -> Result<()> {
        let cell = self.shared.get(&version).context("no such Envoy")?;
        let plan = Plan::new(SidecarPlan::Sqlite);
        let stack = self.runtime.block_on(cell.get_or_try_init(|| self.set_up(version, plan)))?;
        self.run_story(story(stack)).map_err(|error| anyhow!("{error:#}\n{}", stack.logs()))
    }

    fn on_own_stack<T>(
        &self,
        version: Version,
        plan: Plan,
        story: impl for<'a> Fn(&'a Stack) -> Pin<Box<dyn Future<Output = Result<T>> + 'a>>,
    ) -> Result<T> {
        let stack = self.runtime.block_on(self.set_up(version, plan))?;
        let outcome = self.run_story(story(&stack)).and_then(|outcome| {
            self.runtime.block_on(stack.judge())?;
            Ok(outcome)
        });
        outcome.map_err(|error| anyhow!("{error:#}\n{}", stack.logs()))
    }

    async fn set_up(&self, version: Version, plan: Plan) -> Result<Stack> {
        let bench = self.bench.get_or_try_init(async || anyhow::Ok(Arc::new(Bench::start()?)));
        Stack::start(bench.await?, version, plan).await
    }

    /// A panic is a failed assertion; its place is on stderr already.
    fn run_story<T>(&self, story: impl Future<Output = Result<T>>) -> Result<T> {
        let run = || self.runtime.block_on(async { timeout(PATIENCE, story).await });
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(ended) => ended.with_context(|| format!("took longer than {PATIENCE:?}"))?,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                bail!("{}", text.unwrap_or("panicked"))
            }
        }
    }

    /// Checks the shared stacks. The output of the scenarios shows what broke them.
    fn close(&self) -> Result<()> {
        for (version, stack) in &self.shared {
            if let Some(stack) = stack.get() {
                let judged = self.runtime.block_on(stack.judge());
                judged.map_err(|error| {
                    anyhow!("{}: {error:#}\n{}", version.as_str(), stack.logs())
                })?;
            }
        }
        Ok(())
    }
}
