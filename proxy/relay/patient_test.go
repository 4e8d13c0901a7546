package relay

import "testing"

const ackA, ackB = `PING "\x01\x00\x00\x00\x00\x00\x00\x00" ack`, `PING "\x02\x00\x00\x00\x00\x00\x00\x00" ack`

func TestAnswersToPingsWaitForCompany(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.client.want("the call is on its way")
		r.up.all()
		for _, p := range []*peer{r.client, r.up} {
			p.check(p.fr.WritePing(false, [8]byte{1}))
			p.want("nothing yet")
			p.check(p.fr.WritePing(false, [8]byte{2}))
			p.want("nothing yet")
		}
		r.up.headers(3, false, ":status", "200")
		r.client.want("they come with the answer", ackA, ackB, "HEADERS 1 :status=200")
		r.up.want("which is none for etcd")
		pass(patience)
		r.up.want("alone, when time is up", ackA, ackB)
		r.client.want("once")
	})
}

func TestAnswersToPingsWaitAgain(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		for range 3 {
			r.client.check(r.client.fr.WritePing(false, [8]byte{1}))
			pass(patience - 1)
			r.client.want("nothing yet")
			pass(1)
			r.client.want("its time is up", ackA)
		}
	})
}

func TestFewAnswersToPingsWait(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		const many = maxPatient/(frameHeaderSize+8) + 1
		for range many {
			r.client.check(r.client.fr.WritePing(false, [8]byte{1}))
		}
		if got := len(r.client.all()); got != many {
			t.Errorf("%d of %d answers came at once", got, many)
		}
	})
}
