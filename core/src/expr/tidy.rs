//! `&&` and `||` put in order. Nothing in an expression fails or has an effect, so their parts may be asked in any order and
//! answers known at load may be left out.

use super::node::Node;
use super::tree::Const;
use crate::event::Field;

/// `&&` of these: chains inside it joined to it, what is known dropped, the cheap before the dear.
pub(super) fn all(parts: Vec<Node>) -> Node {
    let flat = parts.into_iter().flat_map(|part| if let Node::All(inner) = part { inner } else { vec![part] });
    joined(flat, false).map_or(Node::Const(Const::Bool(false)), |parts| some(parts, true, Node::All))
}

/// `||` of these, in the same way.
pub(super) fn any_of(parts: Vec<Node>) -> Node {
    let flat = parts.into_iter().flat_map(|part| if let Node::AnyOf(inner) = part { inner } else { vec![part] });
    joined(flat, true).map_or(Node::Const(Const::Bool(true)), |parts| some(parts, false, Node::AnyOf))
}

/// `!` of this.
pub(super) fn not(part: Node) -> Node {
    match part {
        Node::Const(Const::Bool(b)) => Node::Const(Const::Bool(!b)),
        part => Node::Not(Box::new(part)),
    }
}

/// The parts that are not known at load, the cheap first; `None` when one of them alone `decides`.
fn joined(parts: impl Iterator<Item = Node>, decides: bool) -> Option<Vec<Node>> {
    let mut open = Vec::new();
    for part in parts {
        match part {
            Node::Const(Const::Bool(b)) if b == decides => return None,
            Node::Const(Const::Bool(_)) => (),
            part => open.push((cost(&part), part)),
        }
    }
    // Stable: among equals the author's order stays.
    open.sort_by_key(|(cost, _)| *cost);
    Some(open.into_iter().map(|(_, part)| part).collect())
}

fn some(parts: Vec<Node>, of_none: bool, join: fn(Vec<Node>) -> Node) -> Node {
    if parts.is_empty() { Node::Const(Const::Bool(of_none)) } else { join(parts) }
}

/// What asking costs, roughly in nanoseconds; only the order matters.
fn cost(node: &Node) -> u32 {
    let own = match node {
        Node::Const(_) | Node::Shared(_) => 0,
        Node::Field(Field::Named(_)) | Node::Has(Field::Named(_)) => 2,
        Node::Field(_) | Node::Has(_) => 10,
        Node::HourOfWeek | Node::Not(_) | Node::Compare(..) | Node::Arithmetic(..) | Node::Negate(_) => 1,
        Node::All(_) | Node::AnyOf(_) | Node::Ternary(_) => 1,
        Node::InValues(..) => 4,
        Node::InTexts(..) | Node::Text(..) | Node::StartsWithAny(..) => 8,
        Node::Size(_) => 20,
        Node::Contains(..) => 30,
        Node::InNetworks(..) => 40,
        Node::Matches(..) => 100,
    };
    node.parts().into_iter().map(cost).fold(own, u32::saturating_add)
}
