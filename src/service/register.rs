//! Services that register themselves, and which of them a bus runs.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::ServiceOptions;
use super::{BatchOptions, Init, Resources, Router, Routes, Service};
use crate::driver::GroupName;
use crate::error::Error;
use crate::middleware;
use crate::pattern::Pattern;
use crate::publisher::Publisher;

/// A service that was registered somewhere in the program. Made by
/// [`register!`](crate::register).
pub struct Registration {
    name: &'static str,
    place: &'static str,
    make: Make,
    outline: fn() -> Result<Outline, Error>,
}

/// What is known of a service without building it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// In the order they were added.
    pub routes: Vec<OutlinedRoute>,
    /// How it is run, unless the bus says otherwise.
    pub options: ServiceOptions,
}

/// One route of an [`Outline`].
#[derive(Clone, Debug, PartialEq)]
pub struct OutlinedRoute {
    /// The event type or the pattern.
    pub pattern: Pattern,
    /// The newest version that the handler decodes; `None`: it takes any.
    pub version: Option<u32>,
    /// Which events the handler gets, in words; `None`: all.
    pub filter: Option<String>,
    /// How many handlers of this route may run at a time; `None`: as many as there are lanes.
    pub concurrency: Option<usize>,
    /// How events come together, where the handler takes batches.
    pub batch: Option<BatchOptions>,
    /// The names of the middleware around the handler, outermost first. What the bus adds for all
    /// services stands after `timeout`; it is known to the bus alone.
    pub middleware: Vec<&'static str>,
}

impl Outline {
    fn of<S: Service>() -> Result<Self, Error> {
        let (routes, options) = (S::routes(Routes::new()), S::options());
        if let Some(flaw) = routes.flaw {
            return Err(flaw);
        }
        let made = routes.made.into_iter().map(|draft| {
            let concurrency = draft.concurrency.as_ref().filter(|_| draft.batch.is_none());
            let timeout = options.handler_timeout;
            let stack = middleware::stack(concurrency, timeout, &[], &routes.middleware);
            OutlinedRoute {
                version: draft.version,
                filter: (!draft.filter.is_always()).then(|| draft.filter.to_string()),
                concurrency: draft.concurrency.as_ref().map(|bulkhead| bulkhead.limit()),
                batch: draft.batch,
                middleware: stack.iter().map(|middleware| middleware.name()).collect(),
                pattern: draft.pattern,
            }
        });
        Ok(Self { routes: made.collect(), options })
    }
}

type Make = for<'a> fn(&'a Init) -> Making<'a>;
type Making<'a> = Pin<Box<dyn Future<Output = Result<Instance, Error>> + Send + 'a>>;

inventory::collect!(Registration);

impl Registration {
    #[doc(hidden)]
    pub const fn new<S: Service>(make: Make, place: &'static str) -> Self {
        Self { name: S::NAME, place, make, outline: Outline::of::<S> }
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What the service's type says, without building it.
    ///
    /// # Errors
    /// Where its routes contradict each other: it could not be built.
    pub fn outline(&self) -> Result<Outline, Error> {
        (self.outline)()
    }

    /// File and line of the registration.
    pub fn place(&self) -> &'static str {
        self.place
    }
}

/// A service that was built and is ready to run.
pub struct Instance {
    pub(crate) group: GroupName,
    pub(crate) router: Router,
    pub(crate) options: ServiceOptions,
    pub(crate) service: Arc<dyn Any + Send + Sync>,
}

impl Instance {
    #[doc(hidden)]
    pub fn new<S: Service>(service: S) -> Result<Self, Error> {
        let service = Arc::new(service);
        let router = Router::new(S::routes(Routes::new()), &service).map_err(|flaw| {
            Error::invalid(format!("routes of service {} are not valid: {flaw}", S::NAME))
                .with_source(flaw)
        })?;
        Ok(Self { group: GroupName::new(S::NAME)?, router, options: S::options(), service })
    }
}

#[doc(hidden)]
pub fn construction_failed<S: Service>(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let error = error.into();
    match error.downcast::<Error>() {
        Ok(own) => *own,
        Err(error) => Error::invalid(format!("service {} cannot be built: {error}", S::NAME))
            .with_source(error),
    }
}

/// Registers a service, so that every bus in the program finds it.
///
/// The second argument is an async function or closure from [`&Init`](crate::Init) to
/// `Result<Service, E>`, for any error type.
///
/// ```
/// # use rumormill::{Init, Routes, Service};
/// struct Audit;
/// impl Service for Audit {
///     const NAME: &'static str = "audit";
///     fn routes(routes: Routes<Self>) -> Routes<Self> { routes }
/// }
/// impl Audit {
///     async fn from_init(_: &Init) -> Result<Self, rumormill::Error> { Ok(Self) }
/// }
/// rumormill::register!(Audit, Audit::from_init);
/// ```
///
/// A crate of which nothing is named is left out by the linker, with its registrations: put
/// `use the_crate as _;` into the program.
#[macro_export]
macro_rules! register {
    ($service:ty, $make:expr) => {
        $crate::__private::inventory::submit! {
            $crate::Registration::new::<$service>(
                |init| ::std::boxed::Box::pin(async move {
                    let made: ::std::result::Result<$service, _> = ($make)(init).await;
                    $crate::__private::Instance::new(
                        made.map_err($crate::__private::construction_failed::<$service>)?,
                    )
                }),
                concat!(file!(), ":", line!()),
            )
        }
    };
}

/// Which of the registered services a bus runs.
#[derive(Clone, Debug, Default)]
pub struct Services(Selection);

#[derive(Clone, Debug, Default)]
enum Selection {
    #[default]
    All,
    Only(Vec<String>),
    None,
}

impl Services {
    /// Every registered service. The default.
    pub fn all() -> Self {
        Self(Selection::All)
    }

    /// These services; one that is not registered is an error.
    pub fn only<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self(Selection::Only(names.into_iter().map(Into::into).collect()))
    }

    /// No registered service.
    pub fn none() -> Self {
        Self(Selection::None)
    }

    /// Builds the selected services, in the order of their names.
    pub(crate) async fn build(
        &self,
        publisher: &Publisher,
        resources: &Arc<Resources>,
    ) -> Result<Vec<Instance>, Error> {
        let mut instances = Vec::new();
        for registration in self.select(inventory::iter::<Registration>().collect())? {
            let init = Init {
                service: registration.name,
                publisher: publisher.clone(),
                resources: Arc::clone(resources),
            };
            instances.push((registration.make)(&init).await?);
        }
        Ok(instances)
    }

    fn select<'a>(&self, all: Vec<&'a Registration>) -> Result<Vec<&'a Registration>, Error> {
        let wanted = match &self.0 {
            Selection::None => return Ok(Vec::new()),
            Selection::All => None,
            Selection::Only(names) => Some(names),
        };
        let mut known: BTreeMap<&str, &Registration> = BTreeMap::new();
        for registration in all {
            if let Some(first) = known.insert(registration.name, registration) {
                return Err(registered_twice(first, registration));
            }
        }
        let Some(wanted) = wanted else {
            return Ok(known.into_values().collect());
        };
        let mut selected = BTreeMap::new();
        for name in wanted {
            let found = known.get(name.as_str()).ok_or_else(|| not_registered(name, &known))?;
            selected.insert(name, *found);
        }
        Ok(selected.into_values().collect())
    }
}

fn registered_twice(first: &Registration, second: &Registration) -> Error {
    let text = format!(
        "two services are named {:?}: registered at {} and at {}",
        first.name, first.place, second.place
    );
    Error::invalid(text).with_help("give one of them another `Service::NAME`")
}

fn not_registered(name: &str, known: &BTreeMap<&str, &Registration>) -> Error {
    let names: Vec<&str> = known.keys().copied().collect();
    let known = if names.is_empty() { "none is".to_owned() } else { names.join(", ") };
    Error::invalid(format!("service {name:?} is not registered; registered: {known}")).with_help(
        "add `rumormill::register!(..)`; if it is in a crate of which the program names nothing, \
         the linker left it out: add `use the_crate as _;`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(name: &'static str, place: &'static str) -> Registration {
        let make: Make = |_| Box::pin(async { Err(Error::invalid("not built in this test")) });
        let outline = || Err(Error::invalid("not asked in this test"));
        Registration { name, place, make, outline }
    }

    fn names(selected: &[&Registration]) -> Vec<&'static str> {
        selected.iter().map(|registration| registration.name).collect()
    }

    #[test]
    fn services_are_selected_by_name() {
        let (email, push) = (registration("email", "a:1"), registration("push", "b:2"));
        let all = || vec![&push, &email];
        assert_eq!(names(&Services::all().select(all()).expect("all")), ["email", "push"]);
        assert_eq!(names(&Services::only(["push"]).select(all()).expect("one")), ["push"]);
        assert!(Services::none().select(all()).expect("none").is_empty());
    }

    #[test]
    fn a_missing_service_names_the_linker_and_what_is_there() {
        let email = registration("email", "a:1");
        let error = Services::only(["emial"]).select(vec![&email]).err().expect("refused");
        assert!(error.to_string().contains("\"emial\""), "{error}");
        assert!(error.to_string().contains("email"), "{error}");
        assert!(error.help().expect("a help line").contains("as _;"));
    }

    #[test]
    fn two_services_of_one_name_are_refused_with_both_places() {
        let (first, second) = (registration("email", "a.rs:1"), registration("email", "b.rs:2"));
        let error = Services::all().select(vec![&first, &second]).err().expect("refused");
        assert!(error.to_string().contains("a.rs:1 and at b.rs:2"), "{error}");
    }
}
