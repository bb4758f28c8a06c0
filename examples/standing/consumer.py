"""What to do about an entity right now, from Tripline's standing topic. Fails open: what is not known is allowed."""
import contextlib, json, os, sys, threading, time
from datetime import datetime
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

class Standing:
    def __init__(self, servers, topic="tripline.standing"):
        self.table = {}  # entity key -> (answer, when it ends in seconds since the epoch)
        threading.Thread(target=self.follow, args=(servers, topic), daemon=True).start()

    def ask(self, key):  # a look into a dict: it never waits for Kafka
        answer, ends = self.table.get(key, ("allow", 0))
        return answer if time.time() < ends else "allow"

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
            ends = datetime.fromisoformat(standing["expires_at"].replace("Z", "+00:00")).timestamp()
            self.table[key] = answers[standing["action"]], ends
        except (ValueError, KeyError, TypeError, AttributeError):  # a tombstone, no such action, or not to be read
            self.table.pop(key, None)

if __name__ == "__main__":
    standing = Standing(os.environ.get("BOOTSTRAP", "localhost:9092"), *sys.argv[1:2])
    for line in sys.stdin: print(standing.ask(line.strip()), flush=True)
