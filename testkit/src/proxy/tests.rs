//! The proxy in front of a broker that is none: it replies to each frame with its correlation id and `done`.

use super::*;
use std::io::Read;
use std::sync::mpsc::{Receiver, Sender, channel};

const LIMIT: Duration = Duration::from_secs(10);
const DONE: &[u8] = b"done";

/// The proxy, and what the broker was asked for, in order.
struct Stage {
    proxy: Proxy,
    asked: Receiver<(Api, i32)>,
}

impl Stage {
    fn new() -> Stage {
        let (proxy, listener) = (Proxy::bind().unwrap(), TcpListener::bind(("127.0.0.1", 0)).unwrap());
        proxy.forward_to(listener.local_addr().unwrap());
        let (tell, asked) = channel();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let tell = tell.clone();
                thread::spawn(move || reply_all(&client, &tell));
            }
        });
        Stage { proxy, asked }
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(self.proxy.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Client(stream)
    }

    fn asked(&self) -> (Api, i32) {
        self.asked.recv_timeout(LIMIT).unwrap()
    }
}

fn reply_all(client: &TcpStream, tell: &Sender<(Api, i32)>) {
    while let Some(request) = frame::Frame::read(client) {
        let id = request.request_id().unwrap();
        let _ = tell.send((request.api().unwrap(), id));
        frame::write(client, &[&8i32.to_be_bytes()[..], &id.to_be_bytes(), DONE].concat());
    }
}

struct Client(TcpStream);

impl Client {
    fn ask(&self, api: Api, id: i32) {
        assert!(frame::write(&self.0, &[&8i32.to_be_bytes()[..], &api.0.to_be_bytes(), &1i16.to_be_bytes(), &id.to_be_bytes()].concat()));
    }

    fn reply(&self) -> Option<i32> {
        frame::Frame::read(&self.0).and_then(|reply| reply.reply_id())
    }
}

#[test]
fn requests_and_replies_pass_and_are_counted() {
    let stage = Stage::new();
    let client = stage.client();
    for id in 1..=3 {
        client.ask(Api::FETCH, id);
    }
    assert_eq!([client.reply(), client.reply(), client.reply()], [Some(1), Some(2), Some(3)]);
    assert_eq!((stage.proxy.requests(Api::FETCH), stage.proxy.requests(Api::PRODUCE)), (3, 0));
    drop(client);
    crate::wait_until(LIMIT, "the connection is forgotten", || stage.proxy.connections() == 0).unwrap();
}

#[test]
fn a_lost_request_never_arrives_and_breaks_its_connection_only() {
    let stage = Stage::new();
    let (client, other) = (stage.client(), stage.client());
    let lost = stage.proxy.nth(Api::END_TXN, 2, Fate::LoseRequest);
    client.ask(Api::END_TXN, 1);
    assert_eq!((client.reply(), lost.happened()), (Some(1), false));
    client.ask(Api::PRODUCE, 2);
    assert_eq!(client.reply(), Some(2));
    client.ask(Api::END_TXN, 3);
    assert_eq!(client.reply(), None);
    lost.wait(LIMIT).unwrap();
    other.ask(Api::END_TXN, 4);
    assert_eq!(other.reply(), Some(4));
    assert_eq!([stage.asked(), stage.asked(), stage.asked()], [(Api::END_TXN, 1), (Api::PRODUCE, 2), (Api::END_TXN, 4)]);
}

#[test]
fn a_lost_reply_is_of_a_request_that_arrived() {
    let stage = Stage::new();
    let client = stage.client();
    let lost = stage.proxy.next(Api::PRODUCE, Fate::LoseReply);
    client.ask(Api::PRODUCE, 7);
    assert_eq!((client.reply(), stage.asked()), (None, (Api::PRODUCE, 7)));
    lost.wait(LIMIT).unwrap();
}

#[test]
fn a_torn_reply_ends_in_its_middle() {
    let stage = Stage::new();
    let client = stage.client();
    stage.proxy.next(Api::FETCH, Fate::TearReply);
    client.ask(Api::FETCH, 7);
    let mut read = Vec::new();
    let _ = (&client.0).read_to_end(&mut read);
    assert_eq!(read.len(), (4 + 4 + DONE.len()) / 2);
}

#[test]
fn a_held_request_arrives_late_although_its_client_is_gone() {
    let stage = Stage::new();
    let client = stage.client();
    let held = stage.proxy.next(Api::END_TXN, Fate::HoldAndCut);
    client.ask(Api::END_TXN, 1);
    assert_eq!(client.reply(), None);
    held.wait(LIMIT).unwrap();
    let again = stage.client();
    again.ask(Api::END_TXN, 2);
    assert_eq!((again.reply(), stage.asked()), (Some(2), (Api::END_TXN, 2)));
    held.release();
    assert_eq!(stage.asked(), (Api::END_TXN, 1));
    assert_eq!(held.wait_reply(LIMIT).unwrap(), DONE);
}

#[test]
fn a_held_request_keeps_what_follows_it() {
    let stage = Stage::new();
    let client = stage.client();
    let held = stage.proxy.next(Api::PRODUCE, Fate::Hold);
    client.ask(Api::PRODUCE, 1);
    client.ask(Api::FETCH, 2);
    held.wait(LIMIT).unwrap();
    assert!(stage.asked.try_recv().is_err());
    held.release();
    assert_eq!([client.reply(), client.reply()], [Some(1), Some(2)]);
}

#[test]
fn latency_and_delays_add_up() {
    let stage = Stage::new();
    let client = stage.client();
    stage.proxy.set_latency(Duration::from_millis(30));
    let delayed = stage.proxy.next(Api::FETCH, Fate::Delay(Duration::from_millis(50)));
    let started = Instant::now();
    client.ask(Api::FETCH, 1);
    assert_eq!(client.reply(), Some(1));
    assert!(started.elapsed() >= Duration::from_millis(30 + 30 + 50));
    assert!(delayed.happened());
}

#[test]
fn a_partition_keeps_everything_until_it_is_over() {
    let stage = Stage::new();
    let (client, gone) = (stage.client(), stage.client());
    client.ask(Api::FETCH, 1);
    gone.ask(Api::FETCH, 2);
    assert_eq!((client.reply(), gone.reply()), (Some(1), Some(2)));
    assert_eq!([stage.asked().0, stage.asked().0], [Api::FETCH; 2]);
    stage.proxy.pause();
    client.ask(Api::FETCH, 3);
    gone.ask(Api::PRODUCE, 4);
    drop(gone);
    crate::wait_until(LIMIT, "both have arrived", || stage.proxy.requests(Api::FETCH) == 3 && stage.proxy.requests(Api::PRODUCE) == 1)
        .unwrap();
    assert!(stage.asked.try_recv().is_err());
    assert_eq!(stage.proxy.connections(), 2, "nobody has heard that a client is gone");
    stage.proxy.resume();
    assert_eq!(client.reply(), Some(3));
    let mut late = [stage.asked(), stage.asked()];
    late.sort();
    assert_eq!(late, [(Api::PRODUCE, 4), (Api::FETCH, 3)]);
}

#[test]
fn a_cut_breaks_every_connection_and_new_ones_work() {
    let stage = Stage::new();
    let clients = [stage.client(), stage.client()];
    for client in &clients {
        client.ask(Api::FETCH, 1);
        assert_eq!(client.reply(), Some(1));
    }
    stage.proxy.pause();
    clients[0].ask(Api::PRODUCE, 2);
    assert_eq!(stage.proxy.cut(), 2);
    assert_eq!((clients[0].reply(), clients[1].reply(), stage.proxy.connections()), (None, None, 0));
    stage.proxy.resume();
    let new = stage.client();
    new.ask(Api::FETCH, 3);
    assert_eq!(new.reply(), Some(3));
    assert_eq!([stage.asked().0, stage.asked().0], [Api::FETCH; 2]);
    assert_eq!(stage.asked(), (Api::FETCH, 3), "what a cut caught is lost");
}

#[test]
fn a_proxy_ends_with_all_its_threads_whatever_they_wait_for() {
    let stage = Stage::new();
    let (held, paused) = (stage.client(), stage.client());
    let fault = stage.proxy.next(Api::END_TXN, Fate::HoldAndCut);
    held.ask(Api::END_TXN, 1);
    fault.wait(LIMIT).unwrap();
    paused.ask(Api::FETCH, 2);
    assert_eq!(paused.reply(), Some(2));
    stage.proxy.pause();
    paused.ask(Api::FETCH, 3);
    crate::wait_until(LIMIT, "the request has arrived", || stage.proxy.requests(Api::FETCH) == 2).unwrap();
    let unconnected = stage.client();
    drop(stage);
    assert_eq!((paused.reply(), unconnected.reply()), (None, None));
}
