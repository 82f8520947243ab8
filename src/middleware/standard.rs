//! [`Trace`](super::Trace), [`CatchPanic`](super::CatchPanic) and [`Timeout`](super::Timeout) as
//! one: nearly every route has these three in this order, and as three each event costs three boxes
//! more.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tracing::Span;

use super::timeout::{self, Alarm};
use super::{Next, panicked, trace};
use crate::error::HandlerError;
use crate::service::{Context, Handling};

type Answer = Result<(), HandlerError>;

/// What is polled for each event: small, as it is moved for each.
pub(crate) struct Standard<'a> {
    span: Span,
    inside: Inside<'a>,
}

/// What runs within the span.
struct Inside<'a> {
    ctx: &'a Context,
    state: State<'a>,
    limit: Duration,
    /// Nothing before the handler waits for something.
    alarm: Option<Pin<Box<Alarm>>>,
}

enum State<'a> {
    /// Not called yet: the call may panic as well.
    New(Next<'a>),
    Runs(Handling<'a>),
    Dropped,
}

impl<'a> Standard<'a> {
    pub(crate) fn new(limit: Duration, ctx: &'a Context, next: Next<'a>) -> Self {
        let inside = Inside { ctx, state: State::New(next), limit, alarm: None };
        Self { span: trace::span(ctx), inside }
    }
}

impl Inside<'_> {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Answer> {
        if let State::New(next) = &self.state {
            self.state = State::Runs(next.begin(self.ctx));
        }
        let State::Runs(handling) = &mut self.state else { return Poll::Pending };
        let answer = match handling.as_mut().poll(cx) {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                let limit = self.limit;
                let alarm = self.alarm.get_or_insert_with(|| Box::pin(timeout::alarm(limit)));
                ready!(alarm.as_mut().poll(cx));
                Err(timeout::late(limit))
            }
        };
        // Here: what a handler still holds may panic as it is dropped.
        self.state = State::Dropped;
        Poll::Ready(answer)
    }
}

impl Future for Standard<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Answer> {
        let Self { span, inside } = &mut *self;
        let _entered = span.enter();
        let polled = if planted!(NoPanicGuard) {
            inside.poll(cx)
        } else {
            let poll = AssertUnwindSafe(|| inside.poll(cx));
            catch_unwind(poll).unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic))))
        };
        let answer = ready!(polled);
        trace::note(&answer);
        Poll::Ready(answer)
    }
}

impl Drop for Standard<'_> {
    fn drop(&mut self) {
        // What a handler says while it is dropped, it says in its span.
        let _entered = self.span.enter();
        self.inside.state = State::Dropped;
    }
}
