package org.example.films;

import android.app.Activity;
import android.os.Bundle;
import android.widget.TextView;
import java.util.Collections;
import java.util.List;
import org.ondevice.core.BundleError;
import org.ondevice.core.Query;
import org.ondevice.core.ScoredItem;
import org.ondevice.engine.Callback;
import org.ondevice.engine.OnDevice;

/** The same in Java, with callbacks on the main thread. */
public class JavaFilmsActivity extends Activity {
    private TextView text;

    @Override
    protected void onCreate(Bundle savedInstanceState) {
        super.onCreate(savedInstanceState);
        text = new TextView(this);
        setContentView(text);
        OnDevice.open(this, "64KB", new Shown<OnDevice>() {
            @Override
            public void onResult(OnDevice model) {
                model.recommend(Collections.singletonMap("user", 42), new Query(10), new Shown<List<ScoredItem>>() {
                    @Override
                    public void onResult(List<ScoredItem> films) {
                        for (ScoredItem film : films) text.append(film.getTitle() + "\n");
                    }
                });
                model.close(); // after it has answered
            }
        });
    }

    private abstract class Shown<T> implements Callback<T> {
        @Override
        public void onError(Throwable error) {
            text.setText(BundleError.explain(error));
        }
    }
}
