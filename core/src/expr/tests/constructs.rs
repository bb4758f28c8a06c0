use super::{compiled, refused_request};
use crate::event::{Event, Field};
use crate::value::{Type, Value};

#[track_caller]
fn check(source: &str, expected: Value<'_>) {
    let event = refused_request();
    let expr = compiled(source);
    assert_eq!(expr.eval(&event), expected, "{source}");
    assert_eq!(expr.holds(&event), expected == Value::Bool(true), "{source}");
}

#[track_caller]
fn all_true(sources: &[&str]) {
    sources.iter().for_each(|source| check(source, Value::Bool(true)));
}

#[track_caller]
fn all_false(sources: &[&str]) {
    sources.iter().for_each(|source| check(source, Value::Bool(false)));
}

#[test]
fn literals_are_read_as_cel_reads_them() {
    check("0x1F", Value::Int(31));
    check("-9223372036854775808", Value::Int(i64::MIN));
    check("1.5e3", Value::Float(1500.0));
    check("-0.5", Value::Float(-0.5));
    check(r#""a\"b\n\x41\u00e5\U0001F600\101\\""#, Value::Str("a\"b\nAå😀A\\"));
    check(r#"r"\d+""#, Value::Str("\\d+"));
    check("'it\\'s' // a comment", Value::Str("it's"));
}

#[test]
fn comparisons_order_values_of_one_type() {
    all_true(&["status_code == 403", "status_code != 404", "status_code >= 403", "400 < status_code", "method == 'POST'"]);
    all_true(&["method < 'PUT'", "status_code < 403.5", "1 == 1.0", "9007199254740993 > 9007199254740992.0", "is_staff == false"]);
    all_true(&["method == 'POST' == true", "'a' < 'b'", "path != route", "false < true"]);
    all_false(&["status_code < 403", "status_code > 403", "method == 'post'", "method != 'POST'", "status_code != 403.0"]);
}

#[test]
fn a_comparison_with_a_missing_field_is_false_and_has_tells() {
    all_false(&["user_id == 'u1'", "user_id != 'u1'", "asn < 5", "asn >= 5", "user_id in ['u1']", "user_id.startsWith('')"]);
    all_false(&["user_id == session_id", "user_id.matches('.*')", "has(user_id)", "has(data.none)", "has(data.tags)", "has(data.form)"]);
    all_false(&["user_id.lowerAscii() != 'x'", "is_authenticated && true", "headers.cookie == ''", "cidr(user_id, '0.0.0.0/0')"]);
    all_false(&["is_authenticated == false", "size(user_id) >= 0", "data.form.kind.deeper != 'x'"]);
    all_true(&["has(status_code)", "has(headers.host)", "has(data.form.kind)", "!has(user_id)", "has(event_time)"]);
    all_true(&["!is_authenticated", "!(user_id == 'u1')", "is_authenticated || true", "is_authenticated ? false : true"]);
    check("user_id", Value::Missing);
    check("is_authenticated", Value::Missing);
    check("size(user_id)", Value::Missing);
    check("asn + 1", Value::Missing);
    check("-asn", Value::Missing);
}

#[test]
fn data_has_the_type_it_has_and_another_type_counts_as_missing() {
    all_true(&[
        "data.service == 'checkout'",
        "data.amount > 39",
        "data.amount == 40.0",
        "data.ratio < 1",
        "data.ok",
        "data.form['a b'] == 1",
    ]);
    all_true(&["data.ok == true", "data['form'].kind == 'login'", "data.service.endsWith('out')", "size(data.service) == 8"]);
    all_false(&[
        "data.amount == '40'",
        "data.amount != '40'",
        "data.service > 3",
        "data.service && true",
        "data.tags == 'x'",
        "data.amount in ['a']",
    ]);
    all_false(&["data.amount.contains('4')", "data.ok < 1", "data.amount == data.service"]);
    check("data.amount + 2", Value::Int(42));
    check("data.ratio * data.ratio", Value::Float(0.25));
    check("data.service + 1", Value::Missing);
    check("data.amount + 1.0", Value::Missing);
    assert_eq!(compiled("data.amount").ty(), Type::Any);
    assert_eq!(compiled("data.amount + 1").ty(), Type::Int);
}

#[test]
fn lists_are_searched_by_value() {
    all_true(&[
        "status_code in [401, 403]",
        "method in ['GET', 'POST']",
        "'/page7/' in lists.many",
        "data.amount in [40.0]",
        "true in [true]",
    ]);
    all_true(&["method.lowerAscii() in ['post']", "data.amount in ['40', 40]", "refused"]);
    all_false(&["status_code in []", "'/page40/' in lists.many", "method.lowerAscii() in ['POST']", "method in lists.many"]);
}

#[test]
fn a_list_of_whole_numbers_holds_numbers_and_texts() {
    all_true(&[
        "status_code in lists.codes",
        "-status_code in lists.codes",
        "data.ok ? '401' in lists.codes : false",
        "size('') in lists.codes",
    ]);
    all_true(&["data.amount - 40 in lists.codes", "401.0 in lists.codes", "'0403' in lists.nearly_codes"]);
    all_false(&["response_time_ms in lists.codes", "'0403' in lists.codes", "data.amount in lists.codes", "asn in lists.codes"]);
    all_false(&["0.5 in lists.codes", "data.service in lists.codes", "data.amount.lowerAscii() in lists.codes", "data.ok in lists.codes"]);
}

#[test]
fn text_functions_look_at_text() {
    all_true(&["path.startsWith('/Admin')", "path.endsWith('/7')", "path.contains('users')", "path.contains('')", "country.endsWith('L')"]);
    all_true(&[r#"path.matches("^/[A-Z]\\w+/users/\\d+$")"#, "path.matches('users')", "route.startsWithAny(lists.admin_prefixes)"]);
    all_true(&["'/page39/x'.startsWithAny(lists.many)", "route.startsWithAny(['/x', '/admin'])", "size('Å😀') == 2", "path.size() == 14"]);
    all_false(&["path.startsWith('/admin')", "path.endsWith('x/Admin/users/7')", "path.contains('ADMIN')", "path.matches('^users')"]);
    all_false(&[
        "'/page4'.startsWithAny(lists.many)",
        "''.startsWithAny(lists.many)",
        "'~'.startsWithAny(lists.many)",
        "path.startsWithAny([])",
    ]);
}

#[test]
fn case_is_folded_where_texts_are_compared() {
    all_true(&["path.lowerAscii() == '/admin/users/7'", "path.lowerAscii() != '/Admin/users/7'", "method.lowerAscii().startsWith('po')"]);
    all_true(&[
        "path.upperAscii().endsWith('USERS/7')",
        "path.lowerAscii().contains('admin/u')",
        "path.lowerAscii().startsWithAny(lists.admin_prefixes)",
    ]);
    all_true(&["'A'.lowerAscii() == 'a'", "'post' == method.lowerAscii()", "folded == '/admin/users/7'", "country.lowerAscii() == 'Ål'"]);
    all_true(&[
        "path.lowerAscii().startsWith('/ADMIN'.lowerAscii())",
        "method.lowerAscii() == method.lowerAscii()",
        "'/PAGE39/'.lowerAscii().startsWithAny(lists.many)",
    ]);
    all_false(&["path.lowerAscii().contains('Admin')", "path.upperAscii() == path", "method.upperAscii() == method.lowerAscii()"]);
    all_false(&[
        "path.lowerAscii().startsWith('/Admin')",
        "path.upperAscii().startsWithAny(lists.admin_prefixes)",
        "country.lowerAscii() == 'ål'",
    ]);
}

#[test]
fn a_prefix_table_agrees_with_a_loop() {
    let prefixes = ["a", "ab", "b/", "b/c", "ba", "z", "é", "", "q", "qq", "r", "s", "t"];
    for skip in 0..prefixes.len() {
        let list: Vec<Box<str>> = prefixes.iter().filter(|p| !p.is_empty() || skip == 0).skip(skip).map(|p| Box::from(*p)).collect();
        for text in ["", "a", "abc", "b", "b/c", "bb", "y", "zz", "éa", "e", "qqq", "u", "~"] {
            for case in [crate::expr::text::Case::Exact, crate::expr::text::Case::Lower] {
                let table = crate::expr::sets::PrefixSet::new(list.clone(), case);
                assert_eq!(table.starts(text), list.iter().any(|p| text.starts_with(&**p)), "{text} {list:?}");
            }
        }
    }
}

#[test]
fn networks_hold_addresses_of_their_version() {
    all_true(&["cidr(ip_address, '10.0.0.0/8')", "cidr(ip_address, lists.offices)", "cidr(ip_address, ['1.2.3.4', '10.1.2.3'])"]);
    all_true(&["cidr('::ffff:10.0.0.1', '10.0.0.0/8')", "cidr('2001:db8::1', '2001:db8::/32')", "cidr('10.0.0.1', '::ffff:10.0.0.0/104')"]);
    all_true(&["cidr('10.0.1.255', ['10.0.1.0/24', '10.0.0.0/24', '10.0.0.128/25'])", "cidr('255.255.255.255', ['255.0.0.0/8', '::/0'])"]);
    all_false(&["cidr('10.0.2.0', ['10.0.1.0/24', '10.0.0.0/24'])", "cidr('9.255.255.255', lists.offices)", "cidr(ip_address, [])"]);
    all_true(&["cidr('1.1.1.1', '0.0.0.0/0')", "cidr('::1', '::/0')", "cidr('::1', '::1')"]);
    all_false(&["cidr(ip_address, '10.1.2.4/32')", "cidr(path, '0.0.0.0/0')", "cidr('1.1.1.1', '::/0')", "cidr('10.0.0.1', '10.0.0.2')"]);
}

#[test]
fn reckoning_is_checked() {
    check("1 + 2 * 3 - 4 / 2", Value::Int(5));
    check("-7 / 2", Value::Int(-3));
    check("-7 % 3", Value::Int(-1));
    check("(1 + 2) * -3", Value::Int(-9));
    check("status_code - 400", Value::Int(3));
    check("status_code / (status_code - 403)", Value::Missing);
    check("status_code % (status_code - 403)", Value::Missing);
    check("9223372036854775807 + status_code", Value::Missing);
    check("data.ratio / (data.ratio - 0.5)", Value::Missing);
    check("-(-9223372036854775807 - status_code)", Value::Missing);
    check("7.0 / 2.0", Value::Float(3.5));
    all_true(&["status_code * 2 > 805", "response_time_ms <= duration('1m30s') / 1000"]);
}

#[test]
fn time_is_in_milliseconds_and_weeks_begin_on_monday() {
    check("duration('1h30m')", Value::Int(5_400_000));
    check("duration('2d5ms')", Value::Int(172_800_005));
    check("event_time", Value::Int(1_795_255_200_000));
    check("hour_of_week()", Value::Int(5 * 24 + 10));
    let expr = compiled("hour_of_week()");
    for (at, hour) in [(0, 72), (-1, 71), (4 * 86_400_000 - 1, 167), (4 * 86_400_000, 0)] {
        assert_eq!(expr.eval(&Event { event_time_ms: at, ..Event::default() }), Value::Int(hour), "{at}");
    }
}

#[test]
fn booleans_bind_as_in_cel() {
    all_true(&["true || false && false", "!false && true", "false ? false : true", "true ? true : false ? false : false", "!!true"]);
    all_true(&["1 + 1 == 2 && 2 < 3", "true || true || false", "true && true && true && true", "(true ? 1 : 2) == 1"]);
    all_false(&["true && true && false && true", "false || false || false", "!(true || false)", "1 in [2] == true"]);
}

#[test]
fn a_ternary_has_the_type_of_its_branches() {
    let fallback = compiled("headers['x-tenant'] != '' ? headers['x-tenant'] : headers['x-tenant-id']");
    assert_eq!(fallback.ty(), Type::Str);
    assert_eq!(fallback.eval(&refused_request()), Value::Missing);
    check("has(user_id) ? user_id : 'nobody'", Value::Str("nobody"));
    check("has(method) ? method : 'none'", Value::Str("POST"));
    check("tenant", Value::Str("shop.example"));
    check("true ? 1 : 2.5", Value::Int(1));
    all_true(&["(has(user_id) ? user_id : 'nobody').startsWith('no')"]);
    assert_eq!(compiled("true ? 1 : 2.5").ty(), Type::Any);
}

#[test]
fn lets_stand_for_what_they_are() {
    all_true(&["refused_admin", "refused_admin && status_code in codes", "!(!refused)", "tenant.startsWith('shop')"]);
    let expr = compiled("refused_admin || refused");
    assert_eq!(expr.source(), "refused_admin || refused");
    let named = |name: &str| Field::named(&[name]);
    assert_eq!(expr.fields().iter().cloned().map(Some).collect::<Vec<_>>(), [named("status_code"), named("route")]);
}

#[test]
fn fields_are_listed_once_each_also_those_that_has_and_time_read() {
    let fields = compiled("has(data.a.b) && data.a.b == 1 && headers.Host == '' && hour_of_week() < 5 || event_time > 0").fields().to_vec();
    let expected = [Field::named(&["data", "a", "b"]), Field::named(&["headers", "host"]), Field::named(&["event_time"])];
    assert_eq!(fields.into_iter().map(Some).collect::<Vec<_>>(), expected);
}
