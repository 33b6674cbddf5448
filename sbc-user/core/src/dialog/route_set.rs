//! The proxies that requests inside a dialog must visit, and how that is written (RFC 3261 s.12.1, s.12.2.1.1).

use crate::sip::header::NameAddr;
use crate::sip::{HeaderError, Message, Uri};

/// Route values in the order in which they are visited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSet {
    routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    /// The whole value, parameters of the address and of the header included.
    value: Box<[u8]>,
    uri: Box<str>,
}

/// Where a request is addressed: its Request-URI and its Route values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressing {
    /// The Request-URI.
    pub request_uri: String,
    /// The Route values, one line each.
    pub routes: Vec<Vec<u8>>,
}

impl RouteSet {
    /// The callee's: the Record-Route values of the request that makes the dialog, in their order (s.12.1.1).
    ///
    /// # Errors
    /// One of them is malformed.
    pub fn of_callee(request: &Message) -> Result<Self, HeaderError> {
        let routes = request.record_routes().map(|value| value.map(Route::from)).collect::<Result<_, _>>()?;
        Ok(Self { routes })
    }

    /// The caller's: the Record-Route values of the response that makes the dialog, in reverse order (s.12.1.2).
    ///
    /// # Errors
    /// One of them is malformed.
    pub fn of_caller(response: &Message) -> Result<Self, HeaderError> {
        let mut set = Self::of_callee(response)?;
        set.routes.reverse();
        Ok(set)
    }

    /// The address of whoever gets a request in the dialog first: the first proxy, else the peer itself.
    #[must_use]
    pub fn next_hop<'a>(&'a self, remote_target: &'a str) -> &'a str {
        self.routes.first().map_or(remote_target, |route| &route.uri)
    }

    /// How a request to `remote_target` is addressed. Behind a first proxy that knows loose routing (`lr`) the
    /// Request-URI is the target; a strict router of RFC 2543 wants its own address there, and the target as the last
    /// Route value.
    #[must_use]
    pub fn address(&self, remote_target: &str) -> Addressing {
        let values = |routes: &[Route]| routes.iter().map(|route| route.value.to_vec()).collect();
        match self.routes.split_first() {
            Some((first, rest)) if !first.is_loose() => {
                let mut routes: Vec<Vec<u8>> = values(rest);
                routes.push(format!("<{remote_target}>").into_bytes());
                Addressing { request_uri: as_request_uri(&first.uri), routes }
            }
            Some(_) | None => {
                Addressing { request_uri: as_request_uri(remote_target), routes: values(&self.routes) }
            }
        }
    }
}

impl Route {
    fn is_loose(&self) -> bool {
        Uri::parse(&self.uri).is_ok_and(|uri| uri.param("lr").is_some())
    }
}

impl From<NameAddr<'_>> for Route {
    fn from(value: NameAddr<'_>) -> Self {
        // Without angle brackets the parameters belong to the header, not to the address; brackets keep it so.
        let text = if value.raw().contains(&b'<') {
            value.raw().into()
        } else {
            format!("<{}>", value.uri().as_str()).into_bytes().into()
        };
        Self { value: text, uri: value.uri().as_str().into() }
    }
}

/// Without what may not stand in a Request-URI: headers, and the `method` parameter (s.19.1.1 table 1).
fn as_request_uri(text: &str) -> String {
    let Ok(uri) = Uri::parse(text) else { return text.to_owned() };
    if !uri.is_sip() {
        return text.to_owned();
    }
    let headers = uri.headers_text().map_or(0, |headers| headers.len() + 1);
    let without_headers = &text[..text.len() - headers];
    if uri.param("method").is_none() {
        return without_headers.to_owned();
    }
    let mut kept = without_headers[..without_headers.len() - uri.params_text().len()].to_owned();
    for param in uri.params_text().split(';').skip(1) {
        let name = param.split('=').next().unwrap_or_default();
        if !name.eq_ignore_ascii_case("method") {
            kept.push(';');
            kept.push_str(param);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(record_route: &str) -> Message {
        Message::parse(format!("OPTIONS sip:h SIP/2.0\r\n{record_route}\r\n").into()).unwrap()
    }

    const TWO: &str = "Record-Route: <sip:p2.example.com;lr>;x=1, <sip:p1.example.com;lr>\r\n";

    fn routes(addressing: &Addressing) -> Vec<&str> {
        addressing.routes.iter().map(|route| std::str::from_utf8(route).unwrap()).collect()
    }

    #[test]
    fn a_callee_keeps_the_order_and_a_caller_reverses_it() {
        let callee = RouteSet::of_callee(&message(TWO)).unwrap().address("sip:a@192.0.2.1");
        assert_eq!(callee.request_uri, "sip:a@192.0.2.1");
        assert_eq!(routes(&callee), ["<sip:p2.example.com;lr>;x=1", "<sip:p1.example.com;lr>"]);

        let caller = RouteSet::of_caller(&message(TWO)).unwrap();
        assert_eq!(caller.next_hop("sip:b@192.0.2.2"), "sip:p1.example.com;lr");
        assert_eq!(
            routes(&caller.address("sip:b@192.0.2.2")),
            ["<sip:p1.example.com;lr>", "<sip:p2.example.com;lr>;x=1"]
        );
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = "Record-Route: <sip:p3;lr>, <sip:p2;lr>\r\nRecord-Route: <sip:p1;lr>\r\n";
        let set = RouteSet::of_callee(&message(lines)).unwrap();
        assert_eq!(routes(&set.address("sip:b@h")), ["<sip:p3;lr>", "<sip:p2;lr>", "<sip:p1;lr>"]);
    }

    #[test]
    fn without_proxies_the_target_is_addressed_directly() {
        let set = RouteSet::of_caller(&message("")).unwrap();
        let addressing = set.address("sip:b@192.0.2.2;transport=tcp");
        assert_eq!(
            addressing,
            Addressing { request_uri: "sip:b@192.0.2.2;transport=tcp".into(), routes: vec![] }
        );
        assert_eq!(set.next_hop("sip:b@192.0.2.2"), "sip:b@192.0.2.2");
    }

    #[test]
    fn a_strict_router_gets_its_own_address_as_request_uri() {
        let set = RouteSet::of_callee(&message(
            "Record-Route: <sip:p1.example.com;method=INVITE;x=y?Subject=z>, <sip:p2.example.com;lr>\r\n",
        ));
        let addressing = set.unwrap().address("sip:b@192.0.2.2");
        assert_eq!(addressing.request_uri, "sip:p1.example.com;x=y");
        assert_eq!(routes(&addressing), ["<sip:p2.example.com;lr>", "<sip:b@192.0.2.2>"]);
    }

    #[test]
    fn parameters_outside_of_brackets_are_not_the_addresss() {
        let set = RouteSet::of_callee(&message("Record-Route: sip:p1.example.com;lr\r\n")).unwrap();
        let addressing = set.address("sip:b@h");
        assert_eq!(addressing.request_uri, "sip:p1.example.com");
    }

    #[test]
    fn headers_and_method_do_not_enter_a_request_uri() {
        let set = RouteSet::default();
        assert_eq!(set.address("sip:b@h;method=BYE?Replaces=x").request_uri, "sip:b@h");
        assert_eq!(set.address("sip:b?x@h;a;Method=BYE;c=d").request_uri, "sip:b?x@h;a;c=d");
        assert_eq!(set.address("tel:+1?x").request_uri, "tel:+1?x");
    }

    #[test]
    fn a_malformed_value_is_an_error() {
        assert!(RouteSet::of_callee(&message("Record-Route: <sip:p1\r\n")).is_err());
    }
}
