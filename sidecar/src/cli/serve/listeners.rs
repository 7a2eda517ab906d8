//! Listeners of the sidecar: for filters and applications, for administrators, and for stored media.

use axum::Router;
use tokio::{sync::watch, time::Instant};

use twilio_edge_api::App;
use twilio_edge_console::{Console, Simulator};
use twilio_edge_platform::{
    config::Config,
    listener::{
        self, Listener,
        admission::{Admission, Limits},
    },
    metrics::Metrics,
    tasks::{Supervisor, Task, TaskHandle},
};

/// Open listeners. The kernel queues connections until they are served.
pub(super) struct Listeners {
    main: Listener,
    admin: Option<Listener>,
    media: Option<Listener>,
}

impl Listeners {
    /// Opens the listeners that the settings name.
    ///
    /// # Errors
    ///
    /// An address cannot be opened; the text names its setting.
    pub(super) async fn open(config: &Config) -> Result<Listeners, String> {
        let open = async |setting: &str, address: Option<&str>| match address {
            Some(address) => Listener::open(setting, address).await.map(Some),
            None => Ok(None),
        };
        Ok(Listeners {
            main: Listener::open("listen", &config.listen).await?,
            admin: open("admin.listen", config.admin.address()).await?,
            media: open("media.store.listen", config.media.store.address()).await?,
        })
    }

    /// Returns the address of the main listener for display.
    pub(super) fn main_address(&self) -> String {
        self.main.to_string()
    }

    /// Answers requests in the background.
    pub(super) fn serve(
        self,
        app: &App,
        config: &Config,
        metrics: &Metrics,
        tasks: &Supervisor,
    ) -> ServingListeners {
        let limits = self.limits(config);
        let (stop, stopping) = watch::channel(false);
        let start = |listener: Listener, router, name| {
            let mut stopping = stopping.clone();
            let admission = Admission::new(limits, metrics.listeners.listener(name));
            let work = listener.serve(router, admission, async move {
                let _ = stopping.wait_for(|stopping| *stopping).await;
            });
            tasks.spawn_owned(Task::Listener, work)
        };
        let [main, administration] = with_consoles(app, config);
        let mut serving = vec![start(self.main, main, "main")];
        if let Some(admin) = self.admin {
            tracing::info!(event = "admin.listening", admin = %admin, "the admin listener started on {admin}");
            serving.push(start(admin, administration, "admin"));
        }
        if let Some(media) = self.media {
            tracing::info!(event = "media.listening", links = %media, "the media listener started on {media}");
            serving.push(start(media, twilio_edge_api::media_router(app), "media"));
        }
        ServingListeners { stop, serving }
    }

    /// Returns the limits of each listener, within the process's limit of open files.
    fn limits(&self, config: &Config) -> Limits {
        let listeners = 1 + usize::from(self.admin.is_some()) + usize::from(self.media.is_some());
        let configured = config.connections.max;
        let max = listener::capacity(configured, listeners);
        if max < configured {
            tracing::warn!(
                event = "connections.capped",
                max,
                wanted = configured,
                "the limit of open files permitted fewer connections than connections.max; raise the limit (LimitNOFILE, ulimit -n)"
            );
        }
        Limits {
            max,
            max_per_address: config.connections.max_per_address.min((max / 2).max(1)),
            ..config.connections.limits()
        }
    }
}

/// Returns the APIs of applications and of administrators, each with its console. The console of the main listener has the API
/// of applications only: `admin.listen` alone decides who reaches the API of administrators.
fn with_consoles(app: &App, config: &Config) -> [Router; 2] {
    let (main, admin) = (twilio_edge_api::router(app), twilio_edge_api::admin_router(app));
    if !config.console.enabled {
        return [main, admin];
    }
    let mut console = Console::new(main.clone());
    if let Some(simulator) = config.simulator_url().and_then(Simulator::new) {
        console = console.with_simulator(simulator);
    }
    let administration = console.clone().with_administration(admin.clone());
    let add =
        |api: Router, console: Console| api.merge(twilio_edge_api::limited(app, console.router()));
    [add(main, console), add(admin, administration)]
}

/// Listeners that answer requests.
pub(super) struct ServingListeners {
    stop: watch::Sender<bool>,
    serving: Vec<TaskHandle>,
}

impl ServingListeners {
    /// Closes the listeners and waits for the requests in progress. Returns false if the deadline passed first.
    pub(super) async fn finish(self, deadline: Instant) -> bool {
        self.serving.iter().for_each(TaskHandle::expect_end);
        let _ = self.stop.send(true);
        let mut is_complete = true;
        for listener in self.serving {
            let limit = deadline.saturating_duration_since(Instant::now());
            is_complete &= listener.finish(limit).await;
        }
        is_complete
    }
}
