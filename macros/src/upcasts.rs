//! The steps from older versions of an event to its own: counted here, their types compared by
//! the compiler.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, LitInt, Path, Result, Token};

/// `upcasts(...)` as it was typed.
pub(crate) struct List {
    functions: Vec<Path>,
    span: Span,
}

impl List {
    pub(crate) fn parse(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let span = meta.path.span();
        if !meta.input.peek(syn::token::Paren) {
            return Err(meta.error("write the functions in order: `upcasts(v1_to_v2, v2_to_v3)`"));
        }
        let content;
        syn::parenthesized!(content in meta.input);
        let functions = Punctuated::<Path, Token![,]>::parse_terminated(&content)
            .map_err(|error| Error::new(error.span(), "an upcast is the name of a function"))?;
        Ok(Self { functions: functions.into_iter().collect(), span })
    }
}

/// One function for each version from `oldest` on, the event's own left out.
pub(crate) struct Upcasts {
    oldest: u32,
    functions: Vec<Path>,
}

impl Upcasts {
    /// Compares the number of functions with the number of steps.
    pub(crate) fn checked(
        version: u32,
        oldest: Option<&LitInt>,
        list: Option<List>,
    ) -> Result<Option<Self>> {
        let span = match (&list, oldest) {
            (Some(list), _) => list.span,
            (None, Some(oldest)) => oldest.span(),
            (None, None) => return Ok(None),
        };
        let functions = list.map(|list| list.functions).unwrap_or_default();
        let start = match oldest {
            Some(oldest) => oldest.base10_parse()?,
            None => 1,
        };
        let Some(steps) = version.checked_sub(start) else {
            let text = format!("the oldest version is {start}, the event's own only {version}");
            return Err(Error::new(span, text));
        };
        if functions.len() == usize::try_from(steps).unwrap_or(usize::MAX) {
            return Ok(Some(Self { oldest: start, functions }));
        }
        let (count, needs) = (counted(functions.len()), format!("{steps} to version {version}"));
        let mend = mend(version, start, functions.len());
        let text = format!("{count}, where version {start} needs {needs}: {mend}");
        Err(Error::new(functions.last().map_or(span, Spanned::span), text))
    }

    /// `Event::OLDEST` and `Event::from_payload`. Each step is written once, as a closure over the
    /// next one, so that two that do not meet are one error, at the culprit.
    pub(crate) fn body(&self, version: u32) -> TokenStream {
        let (oldest, upcasts) = (self.oldest, !self.functions.is_empty());
        let names: Vec<_> = (oldest..version).map(|own| format_ident!("upcast_{own}")).collect();
        let mut steps = TokenStream::new();
        for (index, function) in self.functions.iter().enumerate().rev() {
            let span = Span::call_site().located_at(function.span());
            let name = &names[index];
            steps.extend(match names.get(index + 1) {
                Some(next) => quote_spanned!(span=> let #name = |event| #next(#function(event));),
                None => quote_spanned! {span=>
                    let #name = |event| { let event: Self = #function(event); event };
                },
            });
        }
        let versions = oldest..version;
        quote! {
            const OLDEST: u32 = #oldest;
            const UPCASTS: bool = #upcasts;

            fn from_payload(
                version: u32,
                codec: ::rumormill::Codec,
                payload: &[u8],
            ) -> ::core::result::Result<Self, ::rumormill::Error> {
                #steps
                match version {
                    #(#versions => codec.decode(payload).map(#names),)*
                    #version => codec.decode(payload),
                    _ => ::core::result::Result::Err(
                        ::rumormill::__private::unknown_version::<Self>(version),
                    ),
                }
            }
        }
    }
}

fn counted(count: usize) -> String {
    match count {
        0 => "no upcast".to_owned(),
        1 => "1 upcast".to_owned(),
        _ => format!("{count} upcasts"),
    }
}

/// What the author may have meant.
fn mend(version: u32, start: u32, count: usize) -> String {
    let found = u32::try_from(count).ok().and_then(|count| version.checked_sub(count));
    match found {
        Some(oldest) if oldest > start => {
            format!("add the missing, or say `oldest = {oldest}` to give up what is older")
        }
        Some(oldest) if oldest > 0 => format!("remove one, or say `oldest = {oldest}`"),
        _ => "remove one, or raise the version".to_owned(),
    }
}
