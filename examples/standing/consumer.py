"""What to do about an entity right now, from Tripline's standing topic. Fails open: what is not known is allowed."""
import contextlib, json, os, sys, threading, time
from datetime import datetime
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

class Standing:
    def __init__(self, servers, topic="tripline.standing"):
        self.table = {}  # entity key -> (answer, when it ends in seconds since the epoch), the strongest first
        threading.Thread(target=self.follow, args=(servers, topic), daemon=True).start()

    def ask(self, key):  # a look into a dict: it never waits for Kafka
        now = time.time()
        return next((answer for answer, ends in self.table.get(key, ()) if now < ends), "allow")

    def follow(self, servers, topic):
        consumer = Consumer({"bootstrap.servers": servers, "isolation.level": "read_committed",
                             "group.id": "unused", "enable.auto.commit": False})
        partitions = None
        while not partitions:  # no broker yet, or no topic yet
            with contextlib.suppress(KafkaException):
                partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
            time.sleep(0 if partitions else 1)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        while True:
            record = consumer.poll(1)
            if record is not None and not record.error() and record.key():
                self.take(record.key().decode(errors="replace"), record.value())

    def take(self, key, value):
        try:
            standing = json.loads(value)
            answers = {"block": "block", "step_up": "step_up", "throttle": f"throttle {standing.get('throttle_interval_ms', 0)}"}
            ends = {action: datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp() for action, at in standing["ends"].items()}
            self.table[key] = [(answers[action], ends[action]) for action in reversed(standing["actions"]) if action in answers]
        except (ValueError, KeyError, TypeError, AttributeError):  # a tombstone, or not to be read
            self.table.pop(key, None)

if __name__ == "__main__":
    standing = Standing(os.environ.get("BOOTSTRAP", "localhost:9092"), *sys.argv[1:2])
    for line in sys.stdin: print(standing.ask(line.strip()), flush=True)
