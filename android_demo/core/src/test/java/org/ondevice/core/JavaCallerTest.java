package org.ondevice.core;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.io.IOException;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Everything an app does, in Java: what is thrown is declared, what is optional may be left out. */
class JavaCallerTest {
    @TempDir
    File root;

    private final FakeRuntime runtime = new FakeRuntime();

    private static Map<String, Object> profile() {
        Map<String, Object> profile = new HashMap<>();
        profile.put("user", 8);
        profile.put("zip", "H2X");
        return profile;
    }

    private ModelLibrary library() throws BundleError, IOException {
        TestShipped shipped = new TestShipped(Collections.singletonMap("ours", "v1"));
        BundleStore store = new BundleStore(root, shipped, (event, error) -> System.out.println(event));
        ModelLibrary library = new ModelLibrary(store, runtime);
        assertTrue(library.prepare().isEmpty());
        return library;
    }

    @Test
    void recommends() throws BundleError, IOException {
        try (Recommender recommender = library().open("ours")) {
            List<ScoredItem> best = recommender.recommend(profile(), 3);
            assertEquals(3, best.size());
            ScoredItem first = best.get(0);
            assertEquals("Film " + first.getKey(), first.getTitle());
            assertEquals(Long.valueOf(first.getKey()), first.getFields().get("film"));
            Query dramas = new Query(10, null, Arrays.asList(10, "30"), item -> "Drama".equals(item.get("genre")));
            for (ScoredItem item : recommender.recommend(profile(), dramas)) {
                assertEquals("Drama", item.getFields().get("genre"));
            }
            assertEquals(6, recommender.recommend(profile()).size());
            assertEquals(6, recommender.getNumItems());
            float[] scores = recommender.rank(profile(), Collections.singletonList(Collections.singletonMap("film", 30)));
            assertEquals(1, scores.length);
            BundleError.InvalidInput error = assertThrows(
                BundleError.InvalidInput.class,
                () -> recommender.recommend(Collections.singletonMap("userId", 8))
            );
            assertTrue(BundleError.explain(error).contains("did you mean \"user\"?"));
        }
        assertEquals(0, runtime.getNumOpen());
    }

    @Test
    void keepsTapsAndAsksAfterThem() throws BundleError, IOException {
        History history = History.open(new File(root, "taps.json"));
        history.add("10");
        history.add("20", null);
        history.add("30", Tap.now());
        ModelBundle bundle = ModelBundle.open(TestNextItem.INSTANCE.write(new File(root, "next"), "", true, "until"));
        try (Recommender recommender = new Recommender(bundle, runtime.load(bundle, 1))) {
            assertEquals(5, recommender.recommend(history.getTaps(), Tap.now()).size());
            assertEquals(2, recommender.recommend(history.getTaps(), Tap.now(), new Query(2)).size());
            List<Object> items = Arrays.asList(40, "50");
            assertEquals(2, recommender.rank(history.getTaps(), items, Tap.now()).length);
            assertThrows(BundleError.InvalidInput.class, () -> recommender.recommend(history.getKeys()));
        }
    }

    @Test
    void installsAndLists() throws BundleError, IOException {
        ModelLibrary library = library();
        library.install("mine", directory -> TestBundle.INSTANCE.write(directory, "new"));
        assertEquals(Arrays.asList("mine", "ours"), library.getStore().names());
        BundleInfo info = library.getStore().info("mine");
        assertEquals(info.getTotalBytes(), info.getModelBytes() + info.getCatalogBytes());
        assertEquals("test", info.getManifest().getName());
        assertTrue(BundleStore.isName("mine"));
        assertThrows(BundleError.class, () -> ModelBundle.open(root));
    }

    @Test
    void measures() throws BundleError, IOException {
        ModelBundle bundle = library().getStore().open("ours");
        Benchmark benchmark = new Benchmark(runtime, () -> new MemoryUse(1L, null));
        BenchmarkPlan plan = new BenchmarkPlan(Arrays.asList(1, 2), Collections.singletonList(1), 1, 2);
        assertEquals(2, benchmark.run(bundle, plan).get(0).getLatencies().get(1).getNumCalls());
        Cancellation cancellation = new Cancellation();
        cancellation.cancel();
        assertThrows(CancellationException.class, () -> benchmark.run(bundle, plan, cancellation));
    }
}
